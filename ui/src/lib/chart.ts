/** Geometry of a chart over time: paths, ticks and the summary for those who don't see it. */

export interface Series {
  label: string;
  values: (number | null)[];
}

export interface Box {
  width: number;
  height: number;
}

/** The least round number that is not below the largest value; 1 where there is none. */
export function ceiling(series: Series[]): number {
  const most = Math.max(0, ...series.flatMap((each) => each.values.map((value) => value ?? 0)));
  if (most === 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  // The half of each step has as many digits as the step.
  return ([1, 2, 4, 6, 8, 10].find((step) => step * power >= most) ?? 10) * power;
}

/** One path for all points; a value that is not known leaves a gap. */
export function path(times: number[], values: (number | null)[], top: number, box: Box): string {
  let isPen = false;
  const steps: string[] = [];
  times.forEach((time, n) => {
    const value = values[n] ?? null;
    if (value !== null) {
      const x = position(times, time) * box.width;
      steps.push(`${isPen ? 'L' : 'M'}${x.toFixed(1)} ${(box.height * (1 - value / top)).toFixed(1)}`);
    }
    isPen = value !== null;
  });
  // A point alone has no line: a line of no length with round ends shows it.
  return steps.map((step, n) => (step[0] === 'M' && steps[n + 1]?.[0] !== 'L' ? `${step}h0` : step)).join('');
}

/** Where a time is between the first and the last one, from 0 to 1. */
export function position(times: number[], time: number): number {
  const first = times[0] ?? 0;
  const length = (times.at(-1) ?? 0) - first;
  return length > 0 ? (time - first) / length : 1;
}

/** The index of the point that is nearest to a place between 0 and 1. */
export function nearest(times: number[], place: number): number {
  let best = 0;
  times.forEach((time, n) => {
    if (Math.abs(position(times, time) - place) < Math.abs(position(times, times[best] as number) - place)) best = n;
  });
  return best;
}

/** Every so many rows of a table, so that it has at most `most`; always the last one. */
export function thinned(length: number, most: number): number[] {
  const step = Math.max(1, Math.ceil(length / most));
  return Array.from({ length }, (_, n) => n).filter((n) => (length - 1 - n) % step === 0);
}
