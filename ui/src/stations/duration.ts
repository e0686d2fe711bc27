import type { Text } from '../i18n/text';

/** A whole number of hours or minutes in words. */
export function durationText(ms: number, t: Text['t']): string {
  const minutes = Math.round(ms / 60_000);
  return minutes % 60 === 0 ? t('duration.h', { n: minutes / 60 }) : t('duration.min', { n: minutes });
}
