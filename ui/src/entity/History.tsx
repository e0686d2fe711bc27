/** The history section of an entity: which period, the chart, and what it says in words. */
import { Alert, Button, Empty, Segmented, Skeleton, Spin } from 'antd';
import { lazy, Suspense } from 'react';
import { useText } from '../i18n/useText';
import type { Reading } from '../lib/entity';
import { browserZone, formatNumber, zoneOffset } from '../lib/format';
import { gapsOf, ranges, summaryOf, type Range } from '../lib/series';
import { unitSymbol, withUnit } from '../lib/units';
import { useHistory } from '../state/queries';
import { setUrlState } from '../state/useUrlState';

const HistoryChart = lazy(() => import('./HistoryChart'));

interface Props {
  id: string;
  attribute: string;
  reading: Reading;
  newestMs: number;
  range: Range;
  theme: 'light' | 'dark';
}

function Chart({ id, attribute, reading, newestMs, range, theme }: Props) {
  const { t, lang, attribute: attributeName } = useText();
  const history = useHistory({ id, attribute, range, newestMs });
  const unit = unitSymbol(reading.unitCode);
  if (history.isPending) return <div className="chart-state"><Spin description={t('history.loading')}><div className="spin-space" /></Spin></div>;
  if (history.isError) {
    return (
      <Alert
        type="error" showIcon title={t('history.failed')} description={history.error.message} data-testid="history-failed"
        action={<Button size="small" onClick={() => void history.refetch()}>{t('action.retry')}</Button>}
      />
    );
  }
  const { points, truncated } = history.data;
  const summary = summaryOf(points);
  if (summary === undefined) return <Empty className="chart-state" image={Empty.PRESENTED_IMAGE_SIMPLE} description={t('history.empty')} />;
  const nGaps = gapsOf(points).length;
  const number = (value: number) => withUnit(formatNumber(value, lang), unit);
  return (
    <>
      <Suspense fallback={<Skeleton.Node active className="chart" />}>
        <HistoryChart points={points} unit={unit} theme={theme} label={t('history.title', { attribute: attributeName(attribute) })} />
      </Suspense>
      <p className="hint" data-testid="history-summary">
        {t('history.summary', { n: summary.n, min: number(summary.min), mean: number(summary.mean), max: number(summary.max) })}
        {' · '}
        {nGaps === 0 ? t('history.noGaps') : t('history.gaps', { n: nGaps })}
        {' · '}
        {t('history.zone', { zone: `${browserZone} (${zoneOffset(newestMs, browserZone)})` })}
      </p>
      {truncated && <Alert type="warning" showIcon title={t('history.truncated', { n: summary.n })} />}
    </>
  );
}

export default function History(props: Props) {
  const { t, attribute } = useText();
  return (
    <section className="history">
      <header>
        <h3>{t('history.title', { attribute: attribute(props.attribute) })}</h3>
        <Segmented<Range>
          size="small" value={props.range} onChange={(range) => setUrlState({ range })} aria-label={t('history.range')}
          options={ranges.map((range) => ({ value: range, label: t(`history.${range}`) }))}
        />
      </header>
      <Chart {...props} />
    </section>
  );
}
