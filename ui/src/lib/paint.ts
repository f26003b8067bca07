/** Resolves when the browser has drawn what the page shows now: what comes later does not delay it. */
export function painted(): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 200); // no frame is drawn for a tab in the background
    requestAnimationFrame(() =>
      setTimeout(() => {
        clearTimeout(timer);
        resolve();
      }),
    );
  });
}
