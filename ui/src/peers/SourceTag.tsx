import { Tag, Tooltip } from 'antd';
import type { CitySource } from '../api';
import { useText } from '../i18n/useText';
import { formatDuration } from '../lib/format';

const colors = { ok: 'success', denied: 'warning', unreachable: 'error', error: 'error' } as const;

/** How a city answered the last question, with its own words on hover. */
export function SourceTag({ source }: { source: CitySource }) {
  const { t, lang } = useText();
  const text = source.status === 'ok'
    ? t('peers.answer.ok', { n: source.count ?? 0, ms: source.ms === null ? '–' : formatDuration(source.ms, lang) })
    : t(`peers.answer.${source.status}`);
  return (
    <Tooltip title={source.detail}>
      <Tag color={colors[source.status]} variant="filled">{text}</Tag>
    </Tooltip>
  );
}
