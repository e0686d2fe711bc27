/**
 * Unit symbols for the UN/CEFACT common codes that NGSI-LD puts in `unitCode`.
 *
 * Source: UNECE Recommendation 20, "Codes for Units of Measure Used in International Trade". The table holds what cities
 * report; a code that is not here is shown as it is, which is better than no unit.
 */
const symbols: Readonly<Record<string, string>> = {
  // count, ratio, concentration
  C62: '', P1: '%', 59: 'ppm', 61: 'ppb', GQ: 'µg/m³', GP: 'mg/m³', M1: 'mg/l',
  // temperature, pressure, weather
  CEL: '°C', KEL: 'K', FAH: '°F', A97: 'hPa', PAL: 'Pa', KPA: 'kPa', BAR: 'bar', MBR: 'mbar', DD: '°', D54: 'W/m²', LUX: 'lx', '2N': 'dB',
  // length, area, volume, mass
  MMT: 'mm', CMT: 'cm', MTR: 'm', KMT: 'km', MTK: 'm²', HAR: 'ha', KMK: 'km²', LTR: 'l', MTQ: 'm³', GRM: 'g', KGM: 'kg', TNE: 't',
  // speed, flow
  MTS: 'm/s', KMH: 'km/h', HM: 'mph', MQH: 'm³/h', MQS: 'm³/s', L2: 'l/min',
  // energy, power, electricity
  JOU: 'J', KJO: 'kJ', '3B': 'MJ', GV: 'GJ', WHR: 'Wh', KWH: 'kWh', MWH: 'MWh', GWH: 'GWh',
  WTT: 'W', KWT: 'kW', MAW: 'MW', VLT: 'V', KVT: 'kV', AMP: 'A', HTZ: 'Hz',
  // time
  SEC: 's', MIN: 'min', HUR: 'h', DAY: 'd',
};

/** The symbol to show for a `unitCode`: '' for a pure number or a missing code, the code itself when it is not in the table. */
export function unitSymbol(unitCode: string | undefined): string {
  if (unitCode === undefined) return '';
  return symbols[unitCode.toUpperCase()] ?? unitCode;
}

/** A number text with its unit, as typography wants it: no space before a degree sign of an angle, a thin no-break space elsewhere. */
export function withUnit(text: string, symbol: string): string {
  if (symbol === '') return text;
  return symbol === '°' ? `${text}${symbol}` : `${text}\u202f${symbol}`;
}
