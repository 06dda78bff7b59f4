"""The picture as one page that needs nothing else: no other file, no network."""

from __future__ import annotations

import json
from typing import Any

from linstor_un.cli.mapping.picture import Picture

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>linstor_un: what is where</title>
<style>
:root { --back: #f6f7f9; --box: #fff; --text: #1d2530; --soft: #66707d; --line: #d7dce3; --image: #3573c4;
  --disk: #2c9a63; --checkpoint: #8a55bd; --bad: #d43f3f; --mark: #e58a00; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --box: #1e242b; --text: #e4e8ed; --soft: #97a1ad;
  --line: #353d47; --image: #6aa5f0; --disk: #55c78c; --checkpoint: #b98ae6; --bad: #ff7070; --mark: #ffb143; } }
* { box-sizing: border-box; }
body { margin: 0; font: 14px/1.4 system-ui, sans-serif; color: var(--text); background: var(--back); }
header { position: sticky; top: 0; z-index: 4; display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: center;
  padding: 10px 16px; background: var(--box); border-bottom: 1px solid var(--line); }
h1 { margin: 0; font-size: 16px; }
h2 { margin: 0; font-size: 15px; display: flex; justify-content: space-between; }
input { font: inherit; padding: 3px 8px; width: 17em; color: inherit; background: var(--back);
  border: 1px solid var(--line); border-radius: 4px; }
.soft { color: var(--soft); }
.key { display: flex; flex-wrap: wrap; gap: 4px 12px; font-size: 12px; color: var(--soft); }
.key span { display: inline-flex; align-items: center; gap: 4px; }
#detail { flex-basis: 100%; min-height: 1.4em; }
main { position: relative; padding: 16px; }
#nodes { display: grid; gap: 26px; grid-template-columns: repeat(auto-fit, minmax(270px, 1fr)); align-items: start; }
section { padding: 10px 12px 12px; background: var(--box); border: 1px solid var(--line); border-radius: 6px; }
section.away { border-color: var(--bad); }
.away h2 em { color: var(--bad); }
h2 em { font-style: normal; font-size: 12px; font-weight: normal; color: var(--soft); }
h3 { margin: 9px 0 3px; font-size: 12px; font-weight: normal; color: var(--soft); }
.pool { margin-top: 6px; font-size: 12px; }
.bar { height: 7px; background: var(--line); border-radius: 4px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--soft); }
.cells, .guests { display: flex; flex-wrap: wrap; gap: 3px; }
button { position: relative; z-index: 3; font: inherit; padding: 0; cursor: pointer; }
.cell { width: 13px; height: 13px; border: 2px solid var(--kind); border-radius: 3px; background: var(--kind); }
.image { --kind: var(--image); }
.disk { --kind: var(--disk); }
.checkpoint { --kind: var(--checkpoint); }
.named { width: auto; height: 18px; padding: 0 5px; font-size: 11px; line-height: 14px; color: var(--box); }
.attached { background: var(--box); }
.named.attached { color: var(--kind); }
.tie-breaker { width: 7px; height: 7px; margin: 3px; border-radius: 4px; opacity: .55; }
.primary { box-shadow: 0 0 0 2px var(--text); }
.bad { background: repeating-linear-gradient(45deg, var(--bad) 0 3px, transparent 3px 6px); border-color: var(--bad); }
.named.bad { color: var(--text); background: var(--box); border-style: dashed; }
.guest { padding: 0 5px; font-size: 12px; color: inherit; background: var(--back);
  border: 1px solid var(--line); border-radius: 9px; }
.dim { opacity: .12; }
.hot { outline: 3px solid var(--mark); outline-offset: 1px; opacity: 1; }
svg { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; z-index: 2; }
path { fill: none; stroke: var(--soft); stroke-width: 1; opacity: .22; }
path.hot { outline: none; stroke: var(--mark); stroke-width: 2.5; opacity: .9; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 2px 14px 2px 0; text-align: left; border-bottom: 1px solid var(--line); }
details { margin-top: 24px; }
</style>
</head>
<body>
<header>
<h1>What is where</h1>
<input id="search" type="search" placeholder="volume, VM, image, state" aria-label="Find">
<span class="soft" id="count"></span>
<div class="key" aria-label="Key">
<span><i class="cell image"></i> image</span><span><i class="cell disk"></i> VM's disk</span>
<span><i class="cell checkpoint"></i> memory of a VM</span>
<span><i class="cell disk attached"></i> attached, no data</span>
<span><i class="cell disk tie-breaker"></i> tie-breaker</span><span><i class="cell disk primary"></i> primary</span>
<span><i class="cell disk bad"></i> not up to date</span>
</div>
<div id="detail" class="soft" aria-live="polite">
Point at a volume or a VM to see what belongs together; click to keep it.</div>
</header>
<main>
<svg id="links" aria-hidden="true"></svg>
<div id="nodes"></div>
<details><summary>All volumes as a list</summary><table><thead><tr><th>Volume</th><th>Of</th><th>GiB</th><th>State</th>
<th>Replicas</th><th>Attached</th></tr></thead><tbody id="list"></tbody></table></details>
<noscript>This picture needs a script, which is in this file.</noscript>
</main>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const FEW = 60;
const data = JSON.parse(document.getElementById("data").textContent);
const byName = new Map(data.volumes.map((volume) => [volume.name, volume]));
const cells = new Map(), guests = new Map(), rows = new Map();
let kept = null;

function make(parent, tag, classes, text) {
  const made = document.createElement(tag);
  made.className = classes || "";
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function counted(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

function note(map, key, element) {
  if (!map.has(key)) map.set(key, []);
  map.get(key).push(element);
}

function watch(element, volumes) {
  element.addEventListener("mouseenter", () => { if (!kept) select(volumes); });
  element.addEventListener("mouseleave", () => { if (!kept) select([]); });
  element.addEventListener("click", () => { kept = kept === element ? null : element; select(kept ? volumes() : []); });
}

function select(volumes) {
  const chosen = typeof volumes === "function" ? volumes() : volumes;
  document.querySelectorAll(".hot").forEach((element) => element.classList.remove("hot"));
  for (const volume of chosen) {
    for (const element of cells.get(volume.name) || []) element.classList.add("hot");
    for (const id of volume.vm_ids) for (const element of guests.get(id) || []) element.classList.add("hot");
  }
  if (chosen.length) document.getElementById("detail").textContent = chosen.map(told).join(" | ");
  draw(chosen);
}

function told(volume) {
  const places = volume.spots.map((spot) => `${spot.node} ${spot.role}${spot.is_primary ? ", primary" : ""}`);
  return `${volume.name}: ${volume.of}, ${volume.size_gib} GiB, ${volume.state}; ${places.join("; ")}`;
}

function draw(hot) {
  const svg = document.getElementById("links"), origin = svg.getBoundingClientRect();
  svg.replaceChildren();
  const all = data.volumes.length <= FEW ? data.volumes.filter((volume) => !hot.includes(volume)) : [];
  for (const [volumes, name] of [[all, ""], [hot, "hot"]]) {
    for (const volume of volumes) {
      const ends = volume.vm_ids.flatMap((id) => guests.get(id) || []);
      const places = cells.get(volume.name) || [];
      const from = ends.length ? ends : places.slice(0, 1);
      for (const start of from) for (const end of places) if (start !== end) link(svg, origin, start, end, name);
    }
  }
}

function link(svg, origin, start, end, name) {
  const a = start.getBoundingClientRect(), b = end.getBoundingClientRect();
  const x = a.left + a.width / 2 - origin.left, y = a.top + a.height / 2 - origin.top;
  const u = b.left + b.width / 2 - origin.left, v = b.top + b.height / 2 - origin.top;
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const bend = (u >= x ? 1 : -1) * Math.max(30, Math.abs(u - x) / 3);
  path.setAttribute("d", `M${x},${y} C${x + bend},${y} ${u - bend},${v} ${u},${v}`);
  path.setAttribute("class", name);
  svg.append(path);
}

function node(box) {
  const section = make(document.getElementById("nodes"), "section", box.state === "ONLINE" ? "" : "away");
  const head = make(section, "h2", "", box.name);
  make(head, "em", "", box.state);
  for (const pool of box.pools) {
    const used = pool.total_gib ? 100 - 100 * pool.free_gib / pool.total_gib : 100;
    const free = `${pool.free_gib} of ${pool.total_gib} GiB free`;
    const line = make(section, "div", "pool", `${pool.name} (${pool.kind}): ${free}`);
    make(make(line, "div", "bar"), "i").style.width = used + "%";
  }
  if (box.guests.length) make(section, "h3", "", counted(box.guests.length, "VM"));
  const group = make(section, "div", "guests");
  for (const guest of box.guests) {
    const label = box.guests.length > 40 ? guest.vm_id : guest.vm_id + " " + guest.name;
    const chip = make(group, "button", "guest", label);
    chip.title = `VM ${guest.vm_id} (${guest.name})`;
    note(guests, guest.vm_id, chip);
    watch(chip, () => data.volumes.filter((volume) => volume.vm_ids.includes(guest.vm_id)));
  }
  return section;
}

function fill(section, box) {
  const key = box.name.toLowerCase();
  const here = data.volumes.flatMap((volume) =>
    volume.spots.filter((spot) => spot.node.toLowerCase() === key).map((spot) => [volume, spot]));
  make(section, "h3", "", counted(here.filter((item) => item[1].role === "replica").length, "replica"));
  const group = make(section, "div", "cells");
  for (const [volume, spot] of here) {
    const classes = ["cell", volume.kind, spot.role, spot.is_primary ? "primary" : "", spot.is_good ? "" : "bad"];
    const isNamed = data.volumes.length <= FEW && spot.role !== "tie-breaker";
    const cell = make(group, "button", classes.concat(isNamed ? "named" : "").join(" "), isNamed ? volume.name : "");
    cell.title = `${volume.name}: ${volume.of}`;
    cell.setAttribute("aria-label", `${volume.name} ${spot.role} on ${spot.node}`);
    note(cells, volume.name, cell);
    watch(cell, () => [volume]);
  }
}

function list(volume) {
  const row = make(document.getElementById("list"), "tr");
  const nodes = (role) => volume.spots.filter((spot) => spot.role === role).map((spot) => spot.node).join(" ");
  for (const text of [volume.name, volume.of, volume.size_gib, volume.state, nodes("replica"), nodes("attached")])
    make(row, "td", "", text);
  rows.set(volume.name, row);
}

function search() {
  const words = document.getElementById("search").value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const volume of data.volumes) {
    const text = [volume.name, volume.of, volume.state, volume.kind].join(" ").toLowerCase();
    const found = words.every((word) => text.includes(word));
    count += found;
    for (const element of cells.get(volume.name) || []) element.classList.toggle("dim", !found);
    rows.get(volume.name).hidden = !found;
  }
  document.getElementById("count").textContent =
    `${count} of ${counted(data.volumes.length, "volume")} on ${counted(data.boxes.length, "node")}, ` +
    counted(data.boxes.reduce((sum, box) => sum + box.guests.length, 0), "VM");
}

const sections = data.boxes.map(node);
data.boxes.forEach((box, number) => fill(sections[number], box));
data.volumes.forEach(list);
document.getElementById("search").addEventListener("input", search);
search();
const named = byName.get(decodeURIComponent(location.hash.slice(1)));
if (named) kept = cells.get(named.name)[0];
const shown = () => named && kept ? [named] : [];
select(shown());
window.addEventListener("resize", () => draw(shown()));
</script>
</body>
</html>
"""


def page(picture: Picture) -> str:
    """Return the page; names that users give are data in it, and never markup."""
    text = json.dumps(plain(picture), separators=(",", ":"))
    # Nothing in it may end the element that it is in.
    return _PAGE.replace("@DATA@", text.replace("<", "\\u003c"))


def plain(picture: Picture) -> dict[str, Any]:
    """Return the picture as what JSON has."""
    return {
        "boxes": [
            {
                **box._asdict(),
                "pools": [pool._asdict() for pool in box.pools],
                "guests": [guest._asdict() for guest in box.guests],
            }
            for box in picture.boxes
        ],
        "volumes": [
            {**volume._asdict(), "spots": [spot._asdict() for spot in volume.spots]} for volume in picture.volumes
        ],
    }
