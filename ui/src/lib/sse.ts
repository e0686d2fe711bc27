/** A parser for `text/event-stream` that arrives in arbitrary pieces (WHATWG HTML, 9.2). Pure: bytes are decoded elsewhere. */

export interface ServerEvent {
  event: string;
  data: string;
}

/** The longest unfinished event kept, in characters. An entity is a few kilobytes; more than this is no event stream. */
export const bufferMax = 4 << 20;

/** Returns a function that takes the next piece of text and gives the events completed by it. It throws when one event exceeds `bufferMax`. */
export function sseParser(): (piece: string) => ServerEvent[] {
  let rest = '';
  let event = '';
  let data: string[] = [];

  function line(text: string, events: ServerEvent[]): void {
    if (text === '') {
      if (data.length > 0 || event !== '') events.push({ event: event === '' ? 'message' : event, data: data.join('\n') });
      [event, data] = ['', []];
      return;
    }
    if (text.startsWith(':')) return;
    const colon = text.indexOf(':');
    const field = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? '' : text.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') event = value;
    if (field === 'data') data.push(value);
  }

  return (piece) => {
    rest += piece;
    if (rest.length > bufferMax) throw new Error(`event stream: one event is longer than ${bufferMax} characters`);
    const events: ServerEvent[] = [];
    // A lone CR at the very end may be the first half of CRLF: it waits for the next piece.
    for (let end = rest.search(/\r\n|\n|\r(?!$)/); end >= 0; end = rest.search(/\r\n|\n|\r(?!$)/)) {
      line(rest.slice(0, end), events);
      rest = rest.slice(end + (rest.startsWith('\r\n', end) ? 2 : 1));
    }
    return events;
  };
}

/** How long to wait before attempt `n` (0-based) to connect again, in milliseconds: doubling to half a minute, with up to 30 % of spread. */
export function backoffMs(attempt: number, random: number): number {
  return Math.min(1000 * 2 ** Math.min(attempt, 10), 30_000) * (1 + 0.3 * random);
}
