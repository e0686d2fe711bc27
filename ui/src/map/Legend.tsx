/** What the colours mean, in which unit, and how fresh the data is. */
import { ClockCircleOutlined } from '@ant-design/icons';
import { useText } from '../i18n/useText';
import { formatAgo, formatLocal, formatNumber } from '../lib/format';
import { unitSymbol } from '../lib/units';
import type { StationSet } from '../stations/station';
import { durationText } from '../stations/duration';

/** Beyond this age the newest value is called a recording, not merely late. */
const replayAgeMs = 24 * 3_600e3;

export default function Legend({ set, attribute, nowMs }: { set: StationSet; attribute: string; nowMs: number }) {
  const { t, lang, attribute: attributeName } = useText();
  const { scale, newestMs } = set;
  const unit = unitSymbol(set.unitCode);
  const count = (idx: number) => set.stations.filter((station) => station.classIdx === idx).length;
  const bound = (idx: number) => formatNumber(scale.breaks[idx] ?? 0, lang);
  const range = (idx: number) => {
    if (scale.breaks.length === 0) return t('legend.title');
    if (idx === 0) return `≤ ${bound(0)}`;
    return idx === scale.breaks.length ? `> ${bound(idx - 1)}` : `${bound(idx - 1)} – ${bound(idx)}`;
  };
  const nNoValue = set.stations.filter((station) => station.classIdx === undefined).length;
  const nStale = set.stations.filter((station) => station.stale).length;
  const nSimulated = set.stations.filter((station) => station.simulated).length;
  const one = set.stations.find((station) => station.classIdx !== undefined)?.value;
  return (
    <section className="legend" aria-label={t('legend.title')} data-testid="legend">
      <h2>
        {attributeName(attribute)} {unit !== '' && <span className="unit">{unit}</span>}
      </h2>
      <ul>
        {scale.colors.map((color, idx) => (
          <li key={color}>
            <span className="swatch" style={{ background: color }} />
            <span>{scale.breaks.length === 0 && one !== undefined ? formatNumber(one, lang) : range(idx)}</span>
            <span className="count">{count(idx)}</span>
          </li>
        )).reverse()}
        {nNoValue > 0 && (
          <li>
            <span className="swatch no-value" />
            <span>{t('legend.noValue')}</span>
            <span className="count">{nNoValue}</span>
          </li>
        )}
      </ul>
      {nStale > 0 && (
        <p>
          <span className="swatch stale" /> {t('legend.stale', { n: nStale, limit: durationText(set.staleAfterMs, t) })}
        </p>
      )}
      {nSimulated > 0 && (
        <p>
          <span className="swatch simulated" /> {t('legend.simulated', { n: nSimulated })}
        </p>
      )}
      {newestMs !== undefined && (
        <p className="newest">
          <ClockCircleOutlined /> {t('legend.newest')}: <time dateTime={new Date(newestMs).toISOString()}>{formatLocal(newestMs)}</time>
          {nowMs - newestMs > replayAgeMs && <em>{t('legend.replay', { ago: formatAgo(newestMs, nowMs, lang) })}</em>}
        </p>
      )}
    </section>
  );
}
