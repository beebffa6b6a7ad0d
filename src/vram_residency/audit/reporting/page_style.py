"""How the page of a report looks: light, dark and printed. Contrast is at least 4.5 to 1."""

from __future__ import annotations

from typing import Final

STYLE: Final = """\
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b2430; --soft: #556070; --line: #d8dee6; --wash: #f5f7fa;
  --yes: #14663a; --yes-wash: #e5f4ea; --some: #7a4d00; --some-wash: #fdf1d8;
  --none: #4d5868; --none-wash: #eceff3; --bad: #9b1c1c; --bad-wash: #fde8e8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --ink: #e6ebf2; --soft: #a3afbf; --line: #2e3743; --wash: #1a2029;
    --yes: #7fd8a2; --yes-wash: #12301f; --some: #f0c066; --some-wash: #34270d;
    --none: #b3becd; --none-wash: #232b36; --bad: #ff9d9d; --bad-wash: #3d1618;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.2rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; padding-bottom: .3rem;
  border-bottom: 2px solid var(--line); }
h3 { font-size: 1.02rem; margin: 0; }
.over { margin: 0 0 .3rem; color: var(--soft); font-size: .8rem; font-weight: 600;
  letter-spacing: .12em; text-transform: uppercase; }
.verdict { margin: 0 0 1rem; padding: .8rem 1rem; border-left: .35rem solid; border-radius: .3rem;
  font-weight: 600; overflow-wrap: anywhere; }
.notice { color: var(--soft); }
.yes { --tone: var(--yes); --tone-wash: var(--yes-wash); }
.some { --tone: var(--some); --tone-wash: var(--some-wash); }
.none { --tone: var(--none); --tone-wash: var(--none-wash); }
.bad { --tone: var(--bad); --tone-wash: var(--bad-wash); }
.verdict, .tiles li, .status b { color: var(--tone); background: var(--tone-wash); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .8rem;
  margin: 1.4rem 0; padding: 0; list-style: none; }
.tiles li { padding: .9rem 1rem; border-radius: .5rem; }
.tiles strong { display: block; font-size: 1.9rem; line-height: 1.1; }
.tiles small { display: block; margin-top: .4rem; color: var(--ink); font-size: .78rem; line-height: 1.4; }
dl { display: grid; gap: 0 2rem; margin: 0; }
dl div { display: grid; grid-template-columns: 13rem 1fr; padding: .35rem 0;
  border-bottom: 1px solid var(--line); }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.control { margin: 0 0 1rem; padding: 1rem 1.2rem; border: 1px solid var(--line);
  border-left: .35rem solid var(--tone); border-radius: .5rem; background: var(--wash); }
.number { display: inline-block; margin-right: .5rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.status { margin: .5rem 0 .2rem; font-size: .92rem; }
.status b { display: inline-block; margin-right: .5rem; padding: .05rem .6rem; border-radius: 1rem;
  font-size: .8rem; }
.beyond { margin: .5rem 0 0; color: var(--soft); font-size: .9rem; }
table { width: 100%; margin: .5rem 0; border-collapse: collapse; font-size: .88rem; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-size: .78rem; font-weight: 600; }
tbody th { font-weight: 400; width: 45%; }
th:nth-child(2), .count { width: 6rem; text-align: right; font-variant-numeric: tabular-nums; }
.glance th { width: 5.5rem; white-space: nowrap; color: var(--soft); }
.glance .state { width: 17rem; white-space: nowrap; }
.glance td:nth-child(2) { text-align: left; }
.state b { color: var(--tone); }
code { font: .92em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.soft { color: var(--soft); }
@media (max-width: 40rem) { dl div { grid-template-columns: 1fr; } main { padding: 1.5rem 1rem; } }
@media print {
  :root {
    --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --wash: #fff;
    --yes: #0d4f2b; --yes-wash: #fff; --some: #6b4300; --some-wash: #fff;
    --none: #444; --none-wash: #fff; --bad: #8a1010; --bad-wash: #fff;
  }
  @page { size: A4; margin: 18mm 16mm; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .tiles { grid-template-columns: repeat(3, 1fr); }
  .glance th, .glance td { padding-block: 2pt; }
  .control, .tiles li, .verdict, tr { break-inside: avoid; }
  .tiles li, .status b { border: 1px solid var(--tone); }
  h2, h3 { break-after: avoid; }
}
"""
