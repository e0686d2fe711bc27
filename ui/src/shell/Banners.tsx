/** What an operator must know before trusting the map: missing cities, a silent node, a limited answer. */
import { Alert } from 'antd';
import { ApiError, clusterLimit, type CitySource } from '../api';
import { cityName } from '../cities/cities';
import { useText } from '../i18n/useText';

interface Props {
  sources: readonly CitySource[];
  /** Why the node did not answer the last question; null when it did. */
  nodeFailure: Error | null;
}

export default function Banners({ sources, nodeFailure }: Props) {
  const { t, lang } = useText();
  const cut = sources.filter((source) => source.truncated || (source.count ?? 0) > clusterLimit);
  const troubled = sources.filter((source) => source.status !== 'ok');
  return (
    <div className="banners" aria-live="polite">
      {nodeFailure !== null && <Alert type="error" showIcon title={t(nodeFailure instanceof ApiError ? 'banner.refused' : 'banner.node', { detail: nodeFailure.message })} data-testid="banner-node" />}
      {troubled.map((source) => (
        <Alert
          key={`${source.city} ${source.status}`} type="warning" showIcon closable data-testid={`banner-${source.city}`}
          title={t(`banner.city.${source.status === 'ok' ? 'error' : source.status}`, { city: cityName(source.city, lang) })}
          description={source.detail}
        />
      ))}
      {cut.length > 0 && (
        <Alert
          type="info" showIcon closable data-testid="banner-limit"
          title={t('banner.limit', { cities: cut.map((source) => cityName(source.city, lang)).join(' · '), limit: clusterLimit })}
        />
      )}
    </div>
  );
}
