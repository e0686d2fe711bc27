import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { App as AntApp, ConfigProvider, theme as antTheme } from 'antd';
import enGB from 'antd/locale/en_GB';
import zhCN from 'antd/locale/zh_CN';
import { StrictMode, useEffect, useSyncExternalStore } from 'react';
import { createRoot } from 'react-dom/client';
import { ApiError } from './api';
import App from './App';
import { langOfBrowser, textFor } from './i18n/text';
import { TextContext } from './i18n/useText';
import { useUrlState } from './state/useUrlState';
import './style.css';

const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 4_000,
      // A refusal will be a refusal again; only silence and server trouble are worth a second try.
      retry: (nFailures, error) => nFailures < 1 && !(error instanceof ApiError && error.status < 500),
    },
  },
});

const texts = { en: textFor('en'), zh: textFor('zh') };
// Status colours darker (lighter at night) than Ant Design's own, whose orange and green text is too pale to read on a tint.
const tokens = {
  light: {
    colorPrimary: '#0b5cad', colorInfo: '#0b5cad', colorInfoBg: '#e9f2fb', colorInfoBorder: '#a9cbed',
    colorSuccess: '#2b7a2f', colorSuccessBg: '#e8f5e9', colorSuccessBorder: '#a8d5aa',
    colorWarning: '#a65300', colorWarningBg: '#fff5e0', colorWarningBorder: '#f0cd94',
    colorError: '#c3302b', colorErrorBg: '#fdeceb', colorErrorBorder: '#f2b5b2',
    colorTextDescription: '#586575', colorTextTertiary: '#586575',
  },
  dark: {
    colorPrimary: '#4c9be8', colorInfo: '#4c9be8', colorSuccess: '#6fcf73', colorWarning: '#f5a94d', colorError: '#f37a73',
    colorBgContainer: '#141d28', colorBgElevated: '#1b2633', colorBgLayout: '#0f1720', colorBorder: '#3a4b60', colorBorderSecondary: '#2c3847',
    colorTextDescription: '#a3b1c2', colorTextTertiary: '#a3b1c2',
  },
};
const darkQuery = window.matchMedia('(prefers-color-scheme: dark)');

function useSystemDark(): boolean {
  return useSyncExternalStore(
    (listener) => {
      darkQuery.addEventListener('change', listener);
      return () => darkQuery.removeEventListener('change', listener);
    },
    () => darkQuery.matches,
  );
}

function Page() {
  const url = useUrlState();
  const systemDark = useSystemDark();
  const lang = url.lang ?? langOfBrowser(navigator.languages);
  const theme = url.theme === 'system' ? (systemDark ? 'dark' : 'light') : url.theme;
  useEffect(() => {
    document.documentElement.lang = lang === 'zh' ? 'zh-CN' : 'en';
    document.documentElement.dataset['theme'] = theme;
  }, [lang, theme]);
  return (
    <ConfigProvider
      locale={lang === 'zh' ? zhCN : enGB}
      theme={{
        algorithm: theme === 'dark' ? antTheme.darkAlgorithm : antTheme.defaultAlgorithm,
        token: {
          ...tokens[theme],
          borderRadius: 6,
          fontFamily: 'system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC", sans-serif',
        },
      }}
    >
      <AntApp component={false}>
        <TextContext value={texts[lang]}>
          <App theme={theme} />
        </TextContext>
      </AntApp>
    </ConfigProvider>
  );
}

const root = document.getElementById('root');
if (root === null) throw new Error('index.html: expected an element with the id `root`');
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={client}>
      <Page />
    </QueryClientProvider>
  </StrictMode>,
);
