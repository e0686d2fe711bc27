import { createContext, useContext } from 'react';
import { textFor, type Text } from './text';

export const TextContext = createContext<Text>(textFor('en'));

/** The texts in the page's language. */
export function useText(): Text {
  return useContext(TextContext);
}
