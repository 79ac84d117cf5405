"""The report's style sheet."""

from __future__ import annotations

from lfm4ads_tf.analysis.palette import Palette

_LIGHT = (
    "--page:#ffffff;--panel:#f7f8fa;--text:#1a202c;--soft:#5a6472;--rule:#d9dee5;"
    "--link:#0b5cad;--warn:#fff4d6;--warn-edge:#b7791f;--gain:#00664d;--loss:#a82f00;"
)
_DARK = (
    "--page:#12161c;--panel:#1b212a;--text:#e6e9ee;--soft:#a3adba;--rule:#343d4a;"
    "--link:#7cb7ff;--warn:#3a2f12;--warn-edge:#d9a441;--gain:#4fd1ac;--loss:#ff9a6b;"
)
_RULES = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1240px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 44px 0 10px; padding-top: 10px; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 26px 0 8px; }
p { margin: 8px 0; max-width: 52rem; }
ul { padding-left: 1.2rem; margin: 8px 0; max-width: 60rem; }
li { margin: 5px 0; }
a { color: var(--link); }
code { font-size: .9em; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 14px 0; font-size: .92rem; }
.note, figcaption .note, .soft { color: var(--soft); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: 10px;
  margin: 18px 0; }
.tile { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px;
  padding: 10px 12px; min-width: 0; }
.tile b { display: block; font-size: 1.2rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.warning { background: var(--warn); border-left: 4px solid var(--warn-edge); border-radius: 4px;
  padding: 8px 14px; margin: 12px 0; max-width: 60rem; }
.warning p { margin: 4px 0; }
.warning h4 { font-size: .95rem; margin: 10px 0 2px; }
.warning ul { margin: 2px 0; font-size: .92rem; }
.warning li { margin: 2px 0; }
.warning details { margin: 2px 0; font-size: .92rem; }
.warning summary { font-weight: 400; }
.scroll { overflow-x: auto; margin: 8px 0 14px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 9px; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal;
  min-width: 4.2em; }
th.text, td.text { text-align: left; white-space: normal; min-width: 5.5em; }
tbody th { font-weight: 400; max-width: 24em; }
tbody th:first-child, thead th:first-child { position: sticky; left: 0; background: var(--page); }
tr.group ~ tr th:first-child { min-width: 15em; }
tr.group th { text-align: left; font-weight: 650; background: var(--panel); padding-top: 10px; }
tr.group th span { position: sticky; left: 9px; }
tbody tr:hover > * { background: var(--panel); }
.best { text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 3px; }
.gain { color: var(--gain); font-weight: 650; }
.loss { color: var(--loss); font-weight: 650; }
.noise, .unknown { color: var(--soft); }
details { margin: 12px 0; }
summary { cursor: pointer; font-weight: 600; padding: 4px 0; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr));
  gap: 16px; margin: 12px 0; align-items: start; }
figure { margin: 0; background: var(--panel); border: 1px solid var(--rule); border-radius: 8px;
  padding: 12px 14px; min-width: 0; }
figcaption { font-weight: 650; margin-bottom: 8px; overflow-wrap: anywhere; }
figure > svg { display: block; width: 100%; height: auto; max-width: 460px; margin-top: 6px; }
figure > svg text { font-family: inherit; }
.bar { margin: 7px 0 9px; font-size: .84rem; }
.bar .head { display: flex; justify-content: space-between; gap: 12px; align-items: baseline; }
.bar .head span:first-child { overflow-wrap: anywhere; }
.bar .head span:last-child { white-space: nowrap; font-variant-numeric: tabular-nums; }
.bar svg { display: block; width: 100%; height: 14px; margin-top: 1px; overflow: visible; }
.bars h4 { font-size: .86rem; margin: 14px 0 2px; color: var(--soft); font-weight: 600; }
.axis { position: relative; height: 1.5em; font-size: .78rem; color: var(--soft);
  border-top: 1px solid var(--rule); font-variant-numeric: tabular-nums; }
.axis span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis span.first { transform: none; } .axis span.last { transform: translateX(-100%); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 8px 0; padding: 0;
  list-style: none; font-size: .88rem; }
.legend li { display: flex; align-items: center; gap: 7px; margin: 0; overflow-wrap: anywhere; }
.legend svg { flex: none; width: 26px; height: 12px; }
pre { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: 12px;
  overflow-x: auto; font-size: .85rem; line-height: 1.45; }
footer { color: var(--soft); font-size: .88rem; padding-top: 30px; padding-bottom: 40px; }
@media (max-width: 560px) {
  main, header, footer { padding-left: 14px; padding-right: 14px; }
  th, td { padding: 5px 8px; }
  tbody th:first-child { max-width: 9.5em; }
  tr.group ~ tr th:first-child { min-width: 12em; max-width: 12em; }
  tr.group th:first-child { max-width: none; }
}
@media print { .grid { display: block; } figure { break-inside: avoid; margin-bottom: 12px; } }
"""


def stylesheet() -> str:
    """The CSS of the page, for light and dark mode."""
    light, dark = _LIGHT + Palette.declarations(False), _DARK + Palette.declarations(True)
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f"@media print {{ :root {{ color-scheme: light; {light} }} }}\n{_RULES}"
    )
