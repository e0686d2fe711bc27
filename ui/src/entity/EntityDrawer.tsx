/** Everything about one entity: where it comes from, all its attributes, its history, and the JSON itself. */
import { LineChartOutlined } from '@ant-design/icons';
import { Button, Collapse, Descriptions, Drawer, Empty, Result, Table, Tag, Tooltip, Typography } from 'antd';
import { cityName } from '../cities/cities';
import { useText } from '../i18n/useText';
import { attributeNames, attributeOf, displayName, instantMs, isSimulated, provenancesOf, readingOf, typeOf, type Entity } from '../lib/entity';
import { formatAgo, formatInstant, formatLocal, formatNumber } from '../lib/format';
import type { Range } from '../lib/series';
import { unitSymbol } from '../lib/units';
import { setUrlState } from '../state/useUrlState';
import { attributeText } from './attributeText';
import History from './History';

interface Props {
  /** null: closed. */
  id: string | null;
  entity: Entity | undefined;
  attribute: string | undefined;
  localCity: string;
  range: Range;
  theme: 'light' | 'dark';
  nowMs: number;
  /** True while the answer that may hold the entity is still on its way. */
  loading: boolean;
}

function close(): void {
  setUrlState({ entity: null });
}

/** The chosen value, large, with unit and both times. */
function Headline({ entity, attribute, nowMs }: { entity: Entity; attribute: string; nowMs: number }) {
  const { t, lang, attribute: attributeName } = useText();
  const reading = readingOf(entity, attribute);
  if (reading === undefined) return <p className="hint">{t('history.notNumeric', { attribute: attributeName(attribute) })}</p>;
  const { observedAtMs } = reading;
  return (
    <div className="headline" data-testid="headline">
      <div>
        <span className="label">{attributeName(attribute)}</span>
        <span className="number">{formatNumber(reading.value, lang)}</span>
        <span className="unit">{unitSymbol(reading.unitCode)}</span>
      </div>
      {observedAtMs !== undefined && (
        <dl>
          <dt>{t('entity.local')}</dt>
          <dd data-testid="time-local">{formatLocal(observedAtMs)}</dd>
          <dt>{t('entity.utc')}</dt>
          <dd data-testid="time-utc">{formatInstant(observedAtMs, 'UTC')}</dd>
          <dd className="ago">{formatAgo(observedAtMs, nowMs, lang)}</dd>
        </dl>
      )}
    </div>
  );
}

function Origin({ entity, localCity }: { entity: Entity; localCity: string }) {
  const { t, lang } = useText();
  const origins = provenancesOf(entity);
  const cities = [...new Set(origins.map(({ city }) => city ?? localCity))];
  const agreements = origins.flatMap(({ agreement }) => agreement ?? []);
  const receivedMs = instantMs(origins[0]?.receivedAt);
  const sources = ['source', 'dataProvider']
    .map((name) => attributeOf(entity, name))
    .filter((attribute) => attribute !== undefined)
    .map((attribute) => attributeText(attribute, lang));
  return (
    <Descriptions
      size="small" column={1} className="origin"
      items={[
        { key: 'city', label: t('entity.city'), children: <span data-testid="entity-city">{(cities.length === 0 ? [localCity] : cities).map((city) => cityName(city, lang)).join(' · ')}</span> },
        ...(agreements.length === 0 && cities.some((city) => city !== localCity) ? [] : [{
          key: 'agreement', label: t('entity.agreement'),
          children: agreements.length === 0
            ? t('entity.agreement.own')
            : <div>{agreements.map((agreement) => <Typography.Text key={agreement} code copyable className="urn">{agreement}</Typography.Text>)}</div>,
        }]),
        ...(sources.length === 0 ? [] : [{ key: 'source', label: t('entity.source'), children: sources.join(' · ') }]),
        ...(receivedMs === undefined ? [] : [{ key: 'received', label: t('entity.received'), children: formatLocal(receivedMs) }]),
        { key: 'id', label: t('entity.id'), children: <Typography.Text code copyable className="urn">{entity.id}</Typography.Text> },
      ]}
    />
  );
}

function Attributes({ entity, chosen }: { entity: Entity; chosen: string | undefined }) {
  const { t, lang, attribute: attributeName } = useText();
  const rows = attributeNames(entity).map((name) => {
    const attribute = attributeOf(entity, name);
    return {
      name,
      text: attribute === undefined ? '' : attributeText(attribute, lang),
      numeric: readingOf(entity, name) !== undefined,
      observedMs: instantMs(attribute?.observedAt),
    };
  });
  return (
    <Table
      size="small" pagination={false} rowKey="name" dataSource={rows} data-testid="attributes"
      rowClassName={(row) => (row.name === chosen ? 'chosen' : '')}
      columns={[
        {
          title: t('entity.attribute'), dataIndex: 'name',
          render: (name: string) => <Tooltip title={name}><span data-attribute={name}>{attributeName(name)}</span></Tooltip>,
        },
        { title: t('entity.value'), dataIndex: 'text', render: (text: string) => <span className="attribute-value">{text}</span> },
        {
          title: t('entity.observed'), dataIndex: 'observedMs',
          render: (ms: number | undefined) => ms !== undefined && (
            <Tooltip title={`${formatInstant(ms, 'UTC')} UTC`}><time dateTime={new Date(ms).toISOString()}>{formatLocal(ms)}</time></Tooltip>
          ),
        },
        {
          key: 'chart', width: 40,
          render: (_, row) => row.numeric && (
            <Tooltip title={t('entity.chart', { attribute: attributeName(row.name) })}>
              <Button
                size="small" type={row.name === chosen ? 'primary' : 'text'} icon={<LineChartOutlined />}
                aria-label={t('entity.chart', { attribute: attributeName(row.name) })} onClick={() => setUrlState({ attr: row.name })}
              />
            </Tooltip>
          ),
        },
      ]}
    />
  );
}

function Body(props: Props & { entity: Entity }) {
  const { entity, attribute, nowMs, range, theme } = props;
  const { t } = useText();
  const reading = attribute === undefined ? undefined : readingOf(entity, attribute);
  return (
    <>
      {attribute !== undefined && <Headline entity={entity} attribute={attribute} nowMs={nowMs} />}
      {attribute !== undefined && reading !== undefined && (
        <History id={entity.id} attribute={attribute} reading={reading} newestMs={reading.observedAtMs ?? nowMs} range={range} theme={theme} />
      )}
      <Origin entity={entity} localCity={props.localCity} />
      <h3>{t('entity.attributes')}</h3>
      <Attributes entity={entity} chosen={attribute} />
      <Collapse
        size="small" className="raw"
        items={[{
          key: 'raw', label: t('entity.raw'),
          children: <Typography.Paragraph copyable={{ text: JSON.stringify(entity, null, 2) }}><pre data-testid="raw">{JSON.stringify(entity, null, 2)}</pre></Typography.Paragraph>,
        }]}
      />
    </>
  );
}

export default function EntityDrawer(props: Props) {
  const { id, entity } = props;
  const { t, lang, type } = useText();
  const title = entity === undefined ? (id ?? '') : displayName(entity, lang);
  return (
    <Drawer
      open={id !== null} onClose={close} mask={false} size={520} placement="right" rootClassName="entity-drawer" getContainer={false} destroyOnHidden
      title={<span data-testid="entity-title">{title}</span>}
      extra={entity !== undefined && (
        <>
          <Tag>{type(typeOf(entity))}</Tag>
          {isSimulated(entity) && <Tooltip title={t('tag.simulated.hint')}><Tag variant="outlined">{t('tag.simulated')}</Tag></Tooltip>}
        </>
      )}
    >
      {entity !== undefined && <Body {...props} entity={entity} />}
      {entity === undefined && !props.loading && <Result status="info" title={t('entity.notFound')} subTitle={t('entity.notFound.hint')} />}
      {entity === undefined && props.loading && <Empty image={Empty.PRESENTED_IMAGE_SIMPLE} description={t('stations.loading')} />}
    </Drawer>
  );
}
