/** Puts the page together: asks the node, decides what is chosen, and hands it to the map, the list and the drawer. */
import { MenuFoldOutlined, MenuUnfoldOutlined } from '@ant-design/icons';
import { useQueryClient } from '@tanstack/react-query';
import { Alert, Button, Skeleton, Tabs } from 'antd';
import { lazy, Suspense, useCallback, useEffect, useMemo, useState } from 'react';
import { ApiError, onUnauthorized, setToken, token } from './api';
import TokenDialog from './auth/TokenDialog';
import { boxAround, boxOfCities, cityName, type Box } from './cities/cities';
import EntityDrawer from './entity/EntityDrawer';
import { useText } from './i18n/useText';
import { numericAttributes } from './lib/entity';
import type { Focus } from './map/ClusterMap';
import Legend from './map/Legend';
import PeersPanel from './peers/PeersPanel';
import Banners from './shell/Banners';
import Header from './shell/Header';
import { useNow } from './shell/useNow';
import { useClusterEntities, useInfo, useLive, usePeers, useTypes } from './state/queries';
import { setUrlState, useUrlState } from './state/useUrlState';
import type { View } from './state/urlState';
import { applyChanges, pendingChanges, stationSet, type StationSet } from './stations/station';
import StationList from './stations/StationList';

const ClusterMap = lazy(() => import('./map/ClusterMap'));

/** The kinds of data an operator looks at first; others follow in the order of the node. */
const typeOrder = ['AirQualityObserved', 'WeatherObserved', 'TrafficFlowObserved', 'OffStreetParking', 'SmartMeteringObservation'];

/** The types that this city has or that a neighbour shares with it. */
function useTypeChoice() {
  const types = useTypes();
  const peers = usePeers();
  const own = types.data;
  const list = useMemo(() => {
    const shared = (peers.data ?? []).flatMap((peer) => (peer.receives ?? []).flatMap((agreement) => agreement.types ?? []));
    const rank = (type: string) => (typeOrder.includes(type) ? typeOrder.indexOf(type) : typeOrder.length);
    return [...new Set([...(own ?? []), ...shared])].sort((a, b) => rank(a) - rank(b));
  }, [own, peers.data]);
  return { types, peers, list };
}

/** The token dialog's state. `session` counts tokens, so that what depends on one starts anew with the next. */
function useSession() {
  const client = useQueryClient();
  const [dialog, setDialog] = useState({ open: false, refused: false });
  const [signedOut, setSignedOut] = useState(false);
  const [session, setSession] = useState(0);
  useEffect(() => onUnauthorized(() => {
    const refused = token() !== null;
    setToken(null);
    setSignedOut(true);
    // Asked once, not with every poll: who has closed the dialog finds a button in the bar.
    setDialog((now) => (now.open ? { open: true, refused: now.refused || refused } : { open: !signedOut || refused, refused }));
  }), [signedOut]);
  const start = useCallback((value: string | null) => {
    setToken(value);
    setDialog({ open: false, refused: false });
    setSignedOut(false);
    setSession((count) => count + 1);
    void client.resetQueries();
  }, [client]);
  return { dialog, setDialog, signedOut, session, start };
}

function placesOf(set: StationSet, city?: string): [number, number][] {
  return set.stations.filter((s) => city === undefined || s.city === city).flatMap((s) => (s.place === undefined ? [] : [s.place]));
}

/** Where the map looks: moved by wishes; without a place in the URL it first shows the whole cluster. */
function useFocus(view: View | null, cities: readonly string[], set: StationSet, ready: boolean) {
  const [focus, setFocus] = useState<Focus | null>(null);
  const [asked, setAsked] = useState(view !== null);
  const goTo = useCallback((box: Box | undefined) => {
    if (box !== undefined) setFocus((last) => ({ box, wish: (last?.wish ?? 0) + 1 }));
  }, []);
  useEffect(() => {
    if (asked || !ready) return;
    const box = boxOfCities(cities) ?? boxAround(placesOf(set));
    if (box === undefined) return;
    setAsked(true);
    goTo(box);
  }, [asked, ready, cities, set, goTo]);
  return { focus, goTo };
}

export default function App({ theme }: { theme: 'light' | 'dark' }) {
  const url = useUrlState();
  const text = useText();
  const { t, lang } = text;
  const nowMs = useNow();
  const { dialog, setDialog, signedOut, session, start } = useSession();
  const info = useInfo();
  const { types, peers, list: typeList } = useTypeChoice();
  const type = url.type ?? typeList[0];
  const answer = useClusterEntities(type);
  const localCity = info.data?.city ?? '';
  const live = useLive(type, session);
  const [panelOpen, setPanelOpen] = useState(true);

  const entities = useMemo(() => {
    if (answer.data === undefined || type === undefined) return [];
    return applyChanges(answer.data, pendingChanges(live.changes, answer.data.askedAtMs), type, localCity).entities;
  }, [answer.data, live.changes, type, localCity]);
  const sources = answer.data?.sources ?? [];
  const attributes = useMemo(() => numericAttributes(type ?? '', entities), [type, entities]);
  const attribute = url.attr ?? attributes[0];
  const set = useMemo(
    () => stationSet(entities, { type: type ?? '', attribute: attribute ?? '', lang, localCity }),
    [entities, type, attribute, lang, localCity],
  );
  const cityKeys = [localCity, ...(peers.data ?? []).map((peer) => peer.city)].filter((key) => key !== '').join(' ');
  const cities = useMemo(() => (cityKeys === '' ? [] : cityKeys.split(' ')), [cityKeys]);
  const { focus, goTo } = useFocus(url.view, cities, set, peers.isFetched && info.isFetched && (cities.length > 0 || answer.isFetched));

  const select = useCallback((id: string) => setUrlState({ entity: id }), []);
  const move = useCallback((view: View) => setUrlState({ view }), []);
  const title = localCity === '' ? 'conurb' : t('app.title', { city: cityName(localCity, lang) });
  useEffect(() => {
    document.title = title;
  }, [title]);

  const failure = [answer.error, types.error, info.error].find((error) => error !== null && !(error instanceof ApiError && error.status === 401));
  const emptyText = signedOut ? t('stations.signedOut') : type === undefined ? t('stations.noTypes') : t('stations.none', { type: text.type(type) });
  const nUp = (peers.data ?? []).filter((peer) => peer.status === 'up').length;

  return (
    <div className="page">
      <a className="skip" href="#station-search">{t('app.skip')}</a>
      {info.data?.dev === true && <Alert banner type="warning" title={t('banner.dev')} data-testid="banner-dev" />}
      <Header
        city={cityName(localCity, lang)} types={type === undefined || typeList.includes(type) ? typeList : [type, ...typeList]} type={type}
        attributes={attribute === undefined || attributes.includes(attribute) ? attributes : [attribute, ...attributes]} attribute={attribute}
        live={live.state} theme={url.theme} signedIn={token() !== null} signedOut={signedOut}
        onSignIn={() => setDialog({ open: true, refused: false })} onSignOut={() => start(null)}
      />
      <main className="main">
        <aside className={panelOpen ? 'panel' : 'panel hidden'} aria-label={t('tab.stations')}>
          <Tabs
            activeKey={url.panel} onChange={(panel) => setUrlState({ panel: panel === 'cities' ? 'cities' : 'stations' })}
            items={[
              {
                key: 'stations', label: t('tab.stations'),
                children: (
                  <StationList
                    set={set} sources={sources} cities={cities} emptyText={emptyText} failure={failure?.message ?? null} selectedId={url.entity}
                    loading={(type === undefined ? types.isPending : answer.isPending) && failure === undefined} onSelect={select}
                    onFocusCity={(city) => goTo(boxAround(placesOf(set, city)) ?? boxOfCities([city]))} onRetry={() => { void types.refetch(); void answer.refetch(); }}
                  />
                ),
              },
              {
                key: 'cities',
                label: <span data-testid="tab-cities">{t('tab.cities')} {peers.data !== undefined && peers.data.length > 0 && <span className={nUp < peers.data.length ? 'up some-down' : 'up'}>{nUp + 1}/{peers.data.length + 1}</span>}</span>,
                children: <PeersPanel info={info.data} peers={peers} sources={sources} nowMs={nowMs} />,
              },
            ]}
          />
        </aside>
        <div className={url.entity === null ? 'stage' : 'stage with-drawer'}>
          <Suspense fallback={<Skeleton.Node active className="map" />}>
            <ClusterMap theme={theme} set={set} cluster={cities} selectedId={url.entity} view={url.view} focus={focus} onSelect={select} onMove={move} />
          </Suspense>
          <Button
            className="panel-toggle" icon={panelOpen ? <MenuFoldOutlined /> : <MenuUnfoldOutlined />} onClick={() => setPanelOpen(!panelOpen)}
            aria-label={t(panelOpen ? 'action.hidePanel' : 'action.showPanel')} aria-expanded={panelOpen}
          />
          <Banners sources={sources} nodeFailure={failure ?? null} />
          {attribute !== undefined && set.stations.length > 0 && <Legend set={set} attribute={attribute} nowMs={nowMs} />}
          <EntityDrawer
            id={url.entity} entity={entities.find((entity) => entity.id === url.entity)} attribute={attribute} localCity={localCity}
            range={url.range} theme={theme} nowMs={nowMs} loading={answer.isPending}
          />
        </div>
      </main>
      <TokenDialog open={dialog.open} refused={dialog.refused} onToken={start} onCancel={() => setDialog({ open: false, refused: false })} />
    </div>
  );
}
