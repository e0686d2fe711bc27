/** One attribute over time, with its gaps to be seen. ECharts lives in effects; loaded only when a chart is wanted. */
import { LineChart } from 'echarts/charts';
import { DataZoomComponent, GridComponent, MarkAreaComponent, TooltipComponent } from 'echarts/components';
import { init, registerLocale, use, type ECharts } from 'echarts/core';
import langZH from 'echarts/i18n/langZH-obj.js';
import { CanvasRenderer } from 'echarts/renderers';
import { useEffect, useMemo, useRef, useState } from 'react';
import { useText } from '../i18n/useText';
import { formatInstant, formatLocal, formatNumber } from '../lib/format';
import { gapsOf, linePairs, thin, type Point } from '../lib/series';
import { withUnit } from '../lib/units';

use([LineChart, GridComponent, TooltipComponent, DataZoomComponent, MarkAreaComponent, CanvasRenderer]);
registerLocale('ZH', langZH);

/** More points than this are thinned: a chart of 450 pixels shows no more. */
const pointsMax = 4000;
/** More marked gaps than this would be a grey chart; the line is broken at all of them. */
const markedGapsMax = 300;
/** Below this many points the single values are marked, so that one between two gaps is seen. */
const symbolsMax = 120;

interface Props {
  points: readonly Point[];
  unit: string;
  label: string;
  theme: 'light' | 'dark';
}

const colors = {
  light: { line: '#0b5cad', text: '#4a5665', grid: '#e3e7ec', gap: 'rgba(110, 120, 135, 0.16)', box: '#ffffff' },
  dark: { line: '#6ab0f3', text: '#a9b6c6', grid: '#2c3847', gap: 'rgba(160, 175, 195, 0.16)', box: '#1f2a37' },
};

/** The tooltip as elements, not as HTML text: a unit code comes from whoever published the data. */
function tooltip(parameters: unknown, unit: string, format: (value: number) => string): HTMLElement | string {
  const first = (Array.isArray(parameters) ? parameters[0] : parameters) as { value?: [number, number | null] } | undefined;
  const [timeMs, value] = first?.value ?? [];
  if (timeMs === undefined || value === undefined || value === null) return '';
  const box = document.createElement('div');
  for (const [tag, text] of [['strong', withUnit(format(value), unit)], ['div', formatLocal(timeMs)], ['div', `${formatInstant(timeMs, 'UTC')} UTC`]] as const) {
    box.appendChild(document.createElement(tag)).textContent = text;
  }
  return box;
}

export default function HistoryChart({ points, unit, label, theme }: Props) {
  const { lang } = useText();
  const container = useRef<HTMLDivElement>(null);
  const [chart, setChart] = useState<ECharts | null>(null);

  useEffect(() => {
    const element = container.current;
    if (element === null) return undefined;
    const made = init(element, null, { locale: lang === 'zh' ? 'ZH' : 'EN' });
    const resize = new ResizeObserver(() => made.resize());
    resize.observe(element);
    // Says to people's tools and to tests that something has really been drawn.
    made.on('finished', () => {
      element.dataset['drawn'] = 'true';
    });
    setChart(made);
    return () => {
      resize.disconnect();
      made.dispose();
      setChart(null);
    };
  }, [lang]);

  const data = useMemo(() => {
    const gaps = gapsOf(points);
    return { gaps, pairs: linePairs(thin(points, gaps, pointsMax), gaps) };
  }, [points]);

  useEffect(() => {
    if (chart === null) return;
    const color = colors[theme];
    const axis = { axisLine: { lineStyle: { color: color.grid } }, axisLabel: { color: color.text, hideOverlap: true }, splitLine: { lineStyle: { color: color.grid } } };
    chart.setOption({
      animation: false,
      grid: { left: 8, right: 12, top: 30, bottom: 44, containLabel: true },
      tooltip: {
        trigger: 'axis', backgroundColor: color.box, borderColor: color.grid, textStyle: { color: color.text }, confine: true,
        formatter: (parameters: unknown) => tooltip(parameters, unit, (value) => formatNumber(value, lang)),
      },
      dataZoom: [
        { type: 'inside', filterMode: 'none' },
        { type: 'slider', filterMode: 'none', height: 18, bottom: 8, borderColor: color.grid, textStyle: { color: color.text }, showDetail: false, brushSelect: false },
      ],
      xAxis: { type: 'time', ...axis, splitLine: { show: false } },
      yAxis: { type: 'value', scale: true, name: unit, nameTextStyle: { color: color.text, align: 'left' }, ...axis },
      series: [{
        type: 'line', name: label, data: data.pairs, connectNulls: false, color: color.line, lineStyle: { width: 1.6 },
        showSymbol: data.pairs.length <= symbolsMax, symbolSize: 4,
        markArea: {
          silent: true, itemStyle: { color: color.gap },
          data: data.gaps.slice(0, markedGapsMax).map((gap) => [{ xAxis: gap.fromMs }, { xAxis: gap.toMs }]),
        },
      }],
    }, { notMerge: true });
  }, [chart, data, unit, label, theme, lang]);

  return <div ref={container} className="chart" role="img" aria-label={label} data-testid="history-chart" data-points={points.length} />;
}
