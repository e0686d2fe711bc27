import { useEffect, useState } from 'react';

/** The browser's clock in epoch milliseconds, moving every 15 seconds: enough for "3 minutes ago". */
export function useNow(): number {
  const [nowMs, setNowMs] = useState(() => Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => setNowMs(Date.now()), 15_000);
    return () => window.clearInterval(timer);
  }, []);
  return nowMs;
}
