"""The page's style sheet: light, dark and printed."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f5f7f9; --ink: #1a2027; --soft: #5c6773; --line: #dde2e8;
  --seed: #1f8a5f; --random: #858d98; --guided: #2f6bd8; --company: #b4532a; --pruned: #8a4fbf; --winner: #c98a06;
  --good: #1f7a4d; --bad: #b3372b; --over: #b3372b; --bar: #7f9cc7; --warn: #fff6df; --warn-line: #e4c56a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14181d; --raised: #1d232a; --ink: #e8ecf0; --soft: #9aa6b2; --line: #323a44;
    --seed: #4cc38f; --random: #9aa3ae; --guided: #7aa7ff; --company: #ef8f63; --pruned: #c08cff; --winner: #ffc94d;
    --good: #5fd39a; --bad: #ff8578; --over: #ff8578; --bar: #5f82b8; --warn: #332b14; --warn-line: #6d5a20;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 66rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
}
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 0.6rem; font-size: 1.2rem; }
h3 { margin: 1.6rem 0 0.4rem; font-size: 0.95rem; }
p { margin: 0.5rem 0; max-width: 52rem; }
.eyebrow { margin: 0 0 0.3rem; color: var(--soft); overflow-wrap: anywhere; }
.headline { font-size: 1.05rem; }
figcaption { margin-top: 0.5rem; }
.muted, figcaption { color: var(--soft); font-size: 0.87rem; max-width: 52rem; }
.note {
  margin: 0.8rem 0; padding: 0.6rem 0.9rem; background: var(--warn); border-left: 3px solid var(--warn-line);
  max-width: none;
}
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.7rem; margin: 1.4rem 0; }
.tile { padding: 0.8rem 1rem; background: var(--raised); border-radius: 0.6rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile > span { display: block; color: var(--soft); font-size: 0.84rem; }
.passed { color: var(--good); } .failed { color: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.87rem; }
th, td { padding: 0.34rem 0.55rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: 0.82rem; vertical-align: bottom; line-height: 1.25; }
th:first-child, td:first-child { padding-left: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
tr.first td { background: var(--raised); font-weight: 650; }
tr.first td:first-child { padding-left: 0.5rem; }
.over-budget { color: var(--over); }
span.name { white-space: nowrap; } ul { margin: 0.5rem 0; padding-left: 1.1rem; }
.flag { color: var(--over); font-size: 0.82rem; }
.origin::before {
  content: ""; display: inline-block; width: 0.62em; height: 0.62em; margin-right: 0.45em; border-radius: 50%;
  background: currentColor; print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.origin { white-space: nowrap; }
.origin-seed::before { color: var(--seed); } .origin-random::before { color: var(--random); }
.origin-guided::before { color: var(--guided); } .origin-company::before { color: var(--company); }
.origin-pruned::before { color: var(--pruned); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 0 2.5rem; }
.samples { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.35rem; margin: 0.6rem 0; }
.samples img { width: 100%; display: block; border-radius: 0.25rem; }
.samples span { color: var(--soft); font-size: 0.84rem; }
.chips { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; font-size: 0.84rem; }
.chip { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; border-radius: 0.15em;
  vertical-align: -0.05em; border: 1px solid var(--line);
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
td.bar { width: 55%; }
td.bar div { height: 0.8em; margin-top: 0.35em; border-radius: 0.15em; background: var(--bar); min-width: 1px;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.3rem 1.2rem; margin: 0.4rem 0; font-size: 0.9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 0.88em ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
figure { margin: 0.6rem 0; }
.chart { width: 100%; height: auto; display: block; font-size: 12px; }
.chart text { fill: var(--ink); } .chart text.tick { fill: var(--soft); }
.chart text.title { fill: var(--soft); font-weight: 600; }
.chart text.name { paint-order: stroke; stroke: var(--ground); stroke-width: 3px; stroke-linejoin: round; }
.chart text.winner-name { font-weight: 700; }
.chart text.budget-name { fill: var(--over); font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1; }
.budget { stroke: var(--over); stroke-width: 1.5; stroke-dasharray: 5 3; } .over { fill: var(--over); opacity: 0.06; }
.front { fill: none; stroke: var(--soft); stroke-width: 1.5; opacity: 0.45; }
.leader { fill: none; stroke: var(--soft); stroke-width: 0.7; opacity: 0.5; }
.gain { stroke-width: 1.2; opacity: 0.55; } .interval { stroke-width: 1.5; } .rug { stroke-width: 2; }
.cut { stroke: var(--winner); stroke-width: 1.5; stroke-dasharray: 2 3; }
.curve { fill: none; stroke-linejoin: round; } .thin { stroke-width: 1.1; opacity: 0.7; } .bold { stroke-width: 2.2; }
.fill-seed { fill: var(--seed); } .stroke-seed { stroke: var(--seed); }
.fill-random { fill: var(--random); } .stroke-random { stroke: var(--random); }
.fill-guided { fill: var(--guided); } .stroke-guided { stroke: var(--guided); }
.fill-company { fill: var(--company); } .stroke-company { stroke: var(--company); }
.fill-pruned { fill: var(--pruned); } .stroke-pruned { stroke: var(--pruned); }
.fill-winner { fill: var(--winner); } .stroke-winner { stroke: var(--winner); }
.marker { stroke: var(--ground); stroke-width: 1; }
.marker.hollow { fill: var(--ground); stroke-width: 1.6; }
.hollow.stroke-seed { stroke: var(--seed); } .hollow.stroke-random { stroke: var(--random); }
.hollow.stroke-guided { stroke: var(--guided); } .hollow.stroke-company { stroke: var(--company); }
.hollow.stroke-pruned { stroke: var(--pruned); }
@media print {
  :root {
    color-scheme: light;
    --ground: #ffffff; --raised: #f5f7f9; --ink: #000000; --soft: #4c5661; --line: #d0d6dd; --warn: #fff6df;
    --seed: #1f8a5f; --random: #858d98; --guided: #2f6bd8; --company: #b4532a; --pruned: #8a4fbf; --winner: #c98a06;
    --good: #1f7a4d; --bad: #b3372b; --over: #b3372b; --bar: #7f9cc7; --warn-line: #e4c56a;
  }
  html { font-size: 11px; }
  body { max-width: none; padding: 0; font-size: 10.5px; }
  h2, h3 { break-after: avoid; } figure, tr, .tile, .samples { break-inside: avoid; }
  .wide { overflow: visible; }
}
"""
