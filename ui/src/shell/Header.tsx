/** The bar above the map: where we are, what is shown, and how it is shown. */
import { BulbOutlined, LoginOutlined, LogoutOutlined, TranslationOutlined } from '@ant-design/icons';
import { Badge, Button, Dropdown, Select, Tooltip } from 'antd';
import { useText } from '../i18n/useText';
import { pollSeconds, type LiveState } from '../state/queries';
import type { Theme } from '../state/urlState';
import { setUrlState } from '../state/useUrlState';

interface Props {
  city: string;
  types: readonly string[];
  type: string | undefined;
  attributes: readonly string[];
  attribute: string | undefined;
  live: LiveState;
  theme: Theme;
  signedIn: boolean;
  /** True when the node wants a token that we do not have. */
  signedOut: boolean;
  onSignIn: () => void;
  onSignOut: () => void;
}

const liveColors = { connecting: 'processing', live: 'success', waiting: 'warning', denied: 'error' } as const;

function Logo() {
  return (
    <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
      <rect width="32" height="32" rx="7" fill="#0b5cad" />
      <path d="M10 21 L22 21 L16 10 Z" fill="none" stroke="#fff" strokeWidth="2" strokeOpacity=".55" strokeLinejoin="round" />
      <circle cx="10" cy="21" r="3.6" fill="#fff" />
      <circle cx="22" cy="21" r="3.6" fill="#fff" />
      <circle cx="16" cy="10" r="3.6" fill="#ffd34d" />
    </svg>
  );
}

function Live({ live, city }: { live: LiveState; city: string }) {
  const { t } = useText();
  const hint = t(`live.hint.${live.name}`, { city, seconds: pollSeconds, detail: live.name === 'waiting' ? live.detail : '' });
  return (
    <Tooltip title={hint}>
      <span className="live" role="status" data-testid="live" data-state={live.name}>
        <Badge status={liveColors[live.name]} text={t(`live.${live.name}`)} />
      </span>
    </Tooltip>
  );
}

export default function Header(props: Props) {
  const { t, lang, attribute: attributeName, type: typeName } = useText();
  const themes: Theme[] = ['system', 'light', 'dark'];
  return (
    <header className="bar">
      <div className="brand">
        <Logo />
        <strong>conurb</strong>
        <h1 data-testid="city">{props.city}</h1>
      </div>
      <label className="pick">
        <span>{t('control.type')}</span>
        <Select
          value={props.type ?? null} disabled={props.types.length === 0} aria-label={t('control.type')} data-testid="type" popupMatchSelectWidth={false}
          options={props.types.map((value) => ({ value, label: typeName(value) }))}
          // Another type has other attributes and other entities: keeping the old choice would show nothing.
          onChange={(type: string) => setUrlState({ type, attr: null, entity: null })}
        />
      </label>
      <label className="pick">
        <span>{t('control.attribute')}</span>
        <Select
          value={props.attribute ?? null} disabled={props.attributes.length === 0} aria-label={t('control.attribute')} data-testid="attribute"
          popupMatchSelectWidth={false} options={props.attributes.map((value) => ({ value, label: attributeName(value) }))}
          onChange={(attr: string) => setUrlState({ attr })}
        />
      </label>
      <span className="space" />
      {props.type !== undefined && <Live live={props.live} city={props.city} />}
      <Button
        type="text" icon={<TranslationOutlined />} aria-label={t('control.language.label')} data-testid="language" lang={lang === 'zh' ? 'en' : 'zh'}
        onClick={() => setUrlState({ lang: lang === 'zh' ? 'en' : 'zh' })}
      >
        {t('control.language')}
      </Button>
      <Dropdown
        trigger={['click']}
        menu={{
          selectable: true, selectedKeys: [props.theme], onClick: ({ key }) => setUrlState({ theme: key as Theme }),
          items: themes.map((key) => ({ key, label: t(`control.theme.${key}`) })),
        }}
      >
        <Button type="text" icon={<BulbOutlined />} aria-label={t('control.theme')} data-testid="theme" />
      </Dropdown>
      {props.signedIn && (
        <Tooltip title={t('action.signOut')}>
          <Button type="text" icon={<LogoutOutlined />} aria-label={t('action.signOut')} onClick={props.onSignOut} />
        </Tooltip>
      )}
      {props.signedOut && <Button type="primary" icon={<LoginOutlined />} onClick={props.onSignIn}>{t('action.signIn')}</Button>}
    </header>
  );
}
