/** Texts in two languages. Pure; `useText` binds it to the page's language. */
import type { Lang } from '../lib/entity';
import en from './en.json';
import zh from './zh.json';

export type TextKey = keyof typeof en;
export const texts: Readonly<Record<Lang, Readonly<Record<TextKey, string>>>> = { en, zh };

/** Fills `{name}` places; one without a value stays visible, so that the mistake is seen. */
export function fill(template: string, values: Readonly<Record<string, string | number>> = {}): string {
  return template.replace(/\{(\w+)\}/g, (place, name: string) => String(values[name] ?? place));
}

export interface Text {
  lang: Lang;
  t: (key: TextKey, values?: Readonly<Record<string, string | number>>) => string;
  /** What people call an attribute or type; its own name when we have no other. */
  attribute: (name: string) => string;
  type: (name: string) => string;
}

export function textFor(lang: Lang): Text {
  const table: Readonly<Record<string, string>> = texts[lang];
  return {
    lang,
    t: (key, values) => fill(texts[lang][key], values),
    attribute: (name) => table[`attr.${name}`] ?? name,
    type: (name) => table[`type.${name}`] ?? name,
  };
}

/** Chinese for a browser that prefers it, English for all others. */
export function langOfBrowser(languages: readonly string[]): Lang {
  return languages[0]?.toLowerCase().startsWith('zh') === true ? 'zh' : 'en';
}
