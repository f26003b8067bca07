/** The cosine of the angle between two vectors; 0 where one of them has no direction. */
export function cosine(a: number[], b: number[]): number {
  let product = 0;
  let squareA = 0;
  let squareB = 0;
  a.forEach((value, n) => {
    const other = b[n] ?? 0;
    product += value * other;
    squareA += value * value;
    squareB += other * other;
  });
  return squareA && squareB ? product / Math.sqrt(squareA * squareB) : 0;
}
