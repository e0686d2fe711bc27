/** The same stations as on the map, as a list: for the keyboard, for screen readers, and for finding one by name. */
import { AimOutlined, SearchOutlined } from '@ant-design/icons';
import { Alert, Button, Empty, Input, Segmented, Skeleton, Tag, Tooltip } from 'antd';
import { memo, useDeferredValue, useMemo, useState } from 'react';
import type { CitySource } from '../api';
import { cityName } from '../cities/cities';
import { useText } from '../i18n/useText';
import { formatNumber } from '../lib/format';
import { unitSymbol, withUnit } from '../lib/units';
import { SourceTag } from '../peers/SourceTag';
import { durationText } from './duration';
import { sortStations, type Order, type Station, type StationSet } from './station';

/** Rows drawn at once in one city; more would make every update slow, and nobody reads them. */
const rowsMax = 300;

interface Props {
  set: StationSet;
  sources: readonly CitySource[];
  cities: readonly string[];
  loading: boolean;
  failure: string | null;
  emptyText: string;
  selectedId: string | null;
  onSelect: (id: string) => void;
  onFocusCity: (city: string) => void;
  onRetry: () => void;
}

const Row = memo(function Row(props: { station: Station; color: string | undefined; selected: boolean; hint: string; onSelect: (id: string) => void }) {
  const { station, color, selected } = props;
  const { t, lang } = useText();
  const value = station.value === undefined ? t('value.none') : withUnit(formatNumber(station.value, lang), unitSymbol(station.unitCode));
  return (
    <li>
      <button
        type="button" className={selected ? 'station selected' : 'station'} aria-current={selected} data-testid="station" data-id={station.id}
        onClick={() => props.onSelect(station.id)}
      >
        <span className={color === undefined ? 'swatch no-value' : 'swatch'} style={color === undefined ? {} : { background: color, opacity: station.stale ? 0.35 : 1 }} />
        <span className="name">
          {station.name}
          {station.place === undefined && <small>{t('stations.noPlace')}</small>}
        </span>
        {station.simulated && <Tooltip title={t('tag.simulated.hint')}><Tag variant="outlined">{t('tag.simulated')}</Tag></Tooltip>}
        {station.stale && <Tooltip title={props.hint}><Tag color="warning" variant="filled">{t('tag.stale')}</Tag></Tooltip>}
        <span className={station.value === undefined ? 'value none' : 'value'}>{value}</span>
      </button>
    </li>
  );
});

function City(props: Props & { city: string; stations: Station[]; source: CitySource | undefined }) {
  const { city, stations, set, source } = props;
  const { t, lang } = useText();
  const name = cityName(city, lang);
  const hint = t('tag.stale.hint', { limit: durationText(set.staleAfterMs, t) });
  return (
    <section className="city" data-testid={`city-${city}`}>
      <header>
        <h3>{name}</h3>
        <span className="count">{stations.length}</span>
        {source !== undefined && source.status !== 'ok' && <SourceTag source={source} />}
        <Tooltip title={t('action.zoomTo', { city: name })}>
          <Button size="small" type="text" icon={<AimOutlined />} aria-label={t('action.zoomTo', { city: name })} onClick={() => props.onFocusCity(city)} />
        </Tooltip>
      </header>
      {stations.length > 0 && (
        <ul aria-label={t('stations.list', { city: name })}>
          {stations.slice(0, rowsMax).map((station) => (
            <Row
              key={station.id} station={station} selected={station.id === props.selectedId} hint={hint} onSelect={props.onSelect}
              color={station.classIdx === undefined ? undefined : set.scale.colors[station.classIdx]}
            />
          ))}
        </ul>
      )}
      {stations.length > rowsMax && <p className="hint">{t('stations.more', { n: stations.length - rowsMax })}</p>}
    </section>
  );
}

export default function StationList(props: Props) {
  const { set, failure } = props;
  const { t, lang } = useText();
  const [search, setSearch] = useState('');
  const [order, setOrder] = useState<Order>('value');
  const wanted = useDeferredValue(search.trim().toLowerCase());
  const shown = useMemo(() => {
    const matching = set.stations.filter((s) => wanted === '' || s.name.toLowerCase().includes(wanted) || s.id.toLowerCase().includes(wanted));
    return sortStations(matching, order, lang);
  }, [set, wanted, order, lang]);
  const byCity = useMemo(() => {
    const groups = new Map<string, Station[]>(props.cities.map((city) => [city, []]));
    for (const station of shown) groups.set(station.city, [...(groups.get(station.city) ?? []), station]);
    return [...groups];
  }, [shown, props.cities]);

  if (props.loading) return <div className="pad"><Skeleton active title={false} paragraph={{ rows: 12 }} aria-label={t('stations.loading')} /></div>;
  if (failure !== null && set.stations.length === 0) {
    return (
      <Alert
        className="pad" type="error" showIcon title={t('stations.failed')} description={failure} data-testid="stations-failed"
        action={<Button size="small" onClick={props.onRetry}>{t('action.retry')}</Button>}
      />
    );
  }
  return (
    <>
      <div className="list-tools">
        <Input
          id="station-search" allowClear prefix={<SearchOutlined />} placeholder={t('stations.search')} aria-label={t('stations.search')}
          value={search} onChange={(event) => setSearch(event.target.value)}
        />
        <Segmented<Order>
          size="small" value={order} onChange={setOrder} aria-label={t('stations.sort')}
          options={[{ value: 'value', label: t('stations.sort.value') }, { value: 'name', label: t('stations.sort.name') }]}
        />
        <output className="count" data-testid="station-count" data-count={set.stations.length}>
          {t('stations.count', { n: shown.length, total: set.stations.length })}
        </output>
      </div>
      <div className="list-body">
        {set.stations.length === 0 && <Empty className="pad" image={Empty.PRESENTED_IMAGE_SIMPLE} description={props.emptyText} />}
        {set.stations.length > 0 && shown.length === 0 && <Empty className="pad" image={Empty.PRESENTED_IMAGE_SIMPLE} description={t('stations.noMatch', { text: search })} />}
        {byCity.map(([city, stations]) => {
          const source = props.sources.find((candidate) => candidate.city === city);
          // While searching, a city without a hit only takes room.
          if (stations.length === 0 && (wanted !== '' || source === undefined)) return null;
          return <City key={city} {...props} city={city} stations={stations} source={source} />;
        })}
      </div>
    </>
  );
}
