/** This city and its neighbours: who is reachable, how fast, and what is shared under which agreement. */
import { Alert, Button, Descriptions, Empty, Skeleton, Tag, Tooltip, Typography } from 'antd';
import type { UseQueryResult } from '@tanstack/react-query';
import type { Agreement, CitySource, Info, Peer } from '../api';
import { cityName } from '../cities/cities';
import { useText } from '../i18n/useText';
import { instantMs } from '../lib/entity';
import { browserZone, formatAgo, formatDuration, formatInstant, formatLocal } from '../lib/format';
import { SourceTag } from './SourceTag';

const statusColors = { up: 'success', down: 'error', unknown: 'default' } as const;

function Since({ instant, nowMs }: { instant: string | null; nowMs: number }) {
  const { t, lang } = useText();
  const ms = instantMs(instant);
  if (ms === undefined) return null;
  const time = formatInstant(ms, browserZone).slice(0, 'yyyy-mm-dd hh:mm'.length);
  return <Tooltip title={`${formatLocal(ms)} · ${formatAgo(ms, nowMs, lang)}`}><time dateTime={instant ?? ''}>{t('peers.since', { time })}</time></Tooltip>;
}

function LastSeen({ instant, nowMs }: { instant: string | null; nowMs: number }) {
  const { t, lang } = useText();
  const ms = instantMs(instant);
  if (ms === undefined) return null;
  return <Tooltip title={formatLocal(ms)}><time dateTime={instant ?? ''}>{t('peers.lastSeen', { ago: formatAgo(ms, nowMs, lang) })}</time></Tooltip>;
}

/** The states an agreement can have; only an active one shares data. */
const agreementStates = ['offered', 'active', 'suspended', 'revoked'] as const;

function AgreementCard({ agreement, nowMs }: { agreement: Agreement; nowMs: number }) {
  const { t, lang, attribute, type } = useText();
  const untilMs = instantMs(agreement.validUntil);
  const date = (agreement.validUntil ?? '').slice(0, 10);
  const types = agreement.types ?? [];
  const attributes = (agreement.attributes ?? []).filter((name) => name !== '*');
  const state = agreementStates.find((candidate) => candidate === agreement.status);
  const words = agreement.text?.[lang];
  return (
    <li className="agreement">
      <div>
        <strong>{types.length === 0 ? t('peers.allTypes') : types.map(type).join(' · ')}</strong>
        {state !== undefined && <Tag color={state === 'active' ? 'success' : 'warning'} variant="filled">{t(`peers.agreement.${state}`)}</Tag>}
        <span className="what">{attributes.length === 0 ? t('peers.allAttributes') : attributes.map(attribute).join(', ')}</span>
      </div>
      <div className="terms">
        {agreement.purpose !== null && <span>{t('peers.purpose')}: {agreement.purpose}</span>}
        {agreement.precisionDecimals !== null && <span>{t('peers.precision', { n: agreement.precisionDecimals })}</span>}
        {untilMs !== undefined && (untilMs < nowMs ? <Tag color="error">{t('peers.expired', { date })}</Tag> : <span>{t('peers.validUntil', { date })}</span>)}
      </div>
      {agreement.id !== null && <Typography.Text code copyable className="urn">{agreement.id}</Typography.Text>}
      {words !== undefined && <details><summary>{t('peers.agreement.words')}</summary><p>{words}</p></details>}
    </li>
  );
}

function Agreements({ title, agreements, nowMs }: { title: string; agreements: readonly Agreement[] | null; nowMs: number }) {
  const { t } = useText();
  return (
    <>
      <h4>{title}</h4>
      {(agreements ?? []).length === 0
        ? <p className="hint">{t('peers.nothing')}</p>
        : <ul>{(agreements ?? []).map((agreement, idx) => <AgreementCard key={agreement.id ?? idx} agreement={agreement} nowMs={nowMs} />)}</ul>}
    </>
  );
}

function PeerCard({ peer, source, nowMs }: { peer: Peer; source: CitySource | undefined; nowMs: number }) {
  const { t, lang } = useText();
  const status = peer.status ?? 'unknown';
  const name = cityName(peer.city, lang);
  return (
    <section className="peer" data-testid={`peer-${peer.city}`} data-status={status}>
      <header>
        <h3>{name}</h3>
        <Tag color={statusColors[status]}>{t(`peers.status.${status}`)}</Tag>
        <span className="hint"><Since instant={peer.since} nowMs={nowMs} /></span>
      </header>
      {peer.error !== null && <Alert type="error" showIcon title={peer.error} />}
      <Descriptions
        size="small" column={1}
        items={[
          ...(peer.latencyMs === null ? [] : [{ key: 'ms', label: t('peers.latency'), children: formatDuration(peer.latencyMs, lang) }]),
          ...(source === undefined ? [] : [{ key: 'answer', label: t('peers.answer'), children: <SourceTag source={source} /> }]),
          ...(peer.url === null ? [] : [{ key: 'url', label: t('peers.address'), children: <code>{peer.url}</code> }]),
          ...(peer.key === null ? [] : [{ key: 'key', label: t('peers.key'), children: <Typography.Text code copyable ellipsis className="urn">{peer.key}</Typography.Text> }]),
        ]}
      />
      {status === 'down' && <p className="hint"><LastSeen instant={peer.lastSeen} nowMs={nowMs} /></p>}
      <Agreements title={t('peers.receives', { city: name })} agreements={peer.receives} nowMs={nowMs} />
      <Agreements title={t('peers.offers', { city: name })} agreements={peer.offers} nowMs={nowMs} />
    </section>
  );
}

interface Props {
  info: Info | undefined;
  peers: UseQueryResult<Peer[]>;
  sources: readonly CitySource[];
  nowMs: number;
}

export default function PeersPanel({ info, peers, sources, nowMs }: Props) {
  const { t, lang } = useText();
  const local = sources.find((source) => source.city === info?.city);
  return (
    <div className="list-body peers" data-testid="peers">
      {info !== undefined && (
        <section className="peer self">
          <header>
            <h3>{cityName(info.city, lang)}</h3>
            <Tag color="processing">{t('peers.self')}</Tag>
            <span className="hint"><Since instant={info.startedAt} nowMs={nowMs} /></span>
          </header>
          <Descriptions
            size="small" column={1}
            items={[
              { key: 'version', label: t('peers.version'), children: info.version },
              ...(local === undefined ? [] : [{ key: 'answer', label: t('peers.answer'), children: <SourceTag source={local} /> }]),
              ...(info.key === null ? [] : [{ key: 'key', label: t('peers.key'), children: <Typography.Text code copyable ellipsis className="urn">{info.key}</Typography.Text> }]),
            ]}
          />
        </section>
      )}
      {peers.isPending && <Skeleton className="pad" active />}
      {peers.isError && (
        <Alert
          type="error" showIcon title={t('peers.failed')} description={peers.error.message}
          action={<Button size="small" onClick={() => void peers.refetch()}>{t('action.retry')}</Button>}
        />
      )}
      {peers.data?.length === 0 && <Empty className="pad" image={Empty.PRESENTED_IMAGE_SIMPLE} description={t('peers.none')} />}
      {peers.data?.map((peer) => (
        <PeerCard key={peer.city} peer={peer} nowMs={nowMs} source={sources.find((source) => source.city === peer.city)} />
      ))}
    </div>
  );
}
