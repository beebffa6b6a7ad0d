"""How the page of a proof bundle looks. Frozen with the format: see page.py before changing anything."""

from __future__ import annotations

from typing import Final

STYLE: Final = """\
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b2430; --soft: #556070; --line: #d8dee6; --wash: #f5f7fa;
  --mark: #1f4e8c; --warn: #7a4d00; --warn-wash: #fdf1d8; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #12161c; --ink: #e6ebf2; --soft: #a3afbf; --line: #2e3743; --wash: #1a2029;
  --mark: #8ab8f5; --warn: #f0c066; --warn-wash: #34270d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 54rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem; padding-bottom: .3rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
.over { margin: 0 0 .3rem; color: var(--soft); font-size: .8rem; font-weight: 600;
  letter-spacing: .12em; text-transform: uppercase; }
.warning { padding: .8rem 1rem; border-left: .35rem solid; border-radius: .3rem;
  color: var(--warn); background: var(--warn-wash); font-weight: 600; }
.entry { margin: 0 0 1rem; padding: .9rem 1.1rem; border: 1px solid var(--line);
  border-left: .35rem solid var(--mark); border-radius: .5rem; background: var(--wash); }
.number { margin-right: .4rem; color: var(--mark); font-variant-numeric: tabular-nums; }
.when { margin: .1rem 0 .5rem; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
dl { margin: 0; font-size: .9rem; }
dl div { display: grid; grid-template-columns: 12rem 1fr; gap: 1rem; padding: .25rem 0;
  border-top: 1px solid var(--line); }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
code, pre, dd { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code, dd { font-size: .92em; overflow-wrap: anywhere; }
pre { padding: .7rem 1rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--wash);
  white-space: pre-wrap; }
@media (max-width: 40rem) { dl div { grid-template-columns: 1fr; gap: 0; } main { padding: 1.5rem 1rem; } }
@media print { :root { --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --wash: #fff;
  --mark: #1f4e8c; --warn: #6b4300; --warn-wash: #fff; }
  @page { size: A4; margin: 18mm 16mm; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .entry, dl div { break-inside: avoid; }
  h2, h3 { break-after: avoid; } }
"""
