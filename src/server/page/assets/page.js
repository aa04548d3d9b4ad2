// The script of a build's page: any part of a log of any length, with a bounded number of rows in the page.
//
// The page works without it. It takes the rows over that are there, asks for others by line number
// (/builds/ID/lines), and shows those that are in view. Rows are HTML made and escaped by the broker; nothing here
// makes HTML of text, and the page's policy would not let anything run that was.
"use strict";
(() => {
  const log = document.getElementById("log");
  if (!log) return;

  const ROWS_BEYOND = 30; // rows kept above and below the view
  const CHUNK = 200; // lines asked for at once
  const KEPT = 20000; // rows kept in memory
  const ASKS = 2; // questions under way at once
  const HEIGHT_MAX = 15e6; // pixels; browsers have no taller elements than 17 million
  const HITS_MAX = 10000;
  const POLL_MS = 80; // between two answers of a log that grows

  const { build, attempt } = log.dataset;
  const base = `/builds/${build}`;
  const view = document.getElementById("view");
  const el = (tag, props, ...inner) => {
    const made = Object.assign(document.createElement(tag), props);
    made.append(...inner);
    return made;
  };
  const ask = async (path, query) => {
    const asked = new URLSearchParams({ attempt, ...query });
    const response = await fetch(`${base}/${path}?${asked}`, { headers: { accept: "application/json" } });
    if (!response.ok) throw Object.assign(new Error(response.statusText), { status: response.status });
    return response.json();
  };
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  // ---- The log as far as it is known.

  let lines = +log.dataset.lines;
  let bytes = +log.dataset.bytes;
  let more = log.dataset.more === "true";
  let outline = { folds: [], marks: [], summary: [], gap: null, marked: true, errors: 0, warnings: 0 };
  const rows = new Map(); // line -> HTML
  const toggled = new Map(); // a fold's first line -> whether somebody folded it
  let heads = new Map(); // a fold's first line -> the fold

  const template = document.createElement("template");
  {
    let line = +log.dataset.from;
    for (const row of view.children) {
      // A row that is not there (what is not kept has one in all) leaves its number out.
      line = +row.id.slice(1) || line;
      rows.set(line++, row.outerHTML);
    }
  }

  const isFolded = (fold) => toggled.get(fold.first) ?? fold.folded;

  // Lines that are out of sight: [first, last, rows hidden before it], in order and apart from each other.
  let hidden = [];
  let shownRows = lines;
  const layout = () => {
    const away = [];
    if (outline.gap && outline.gap[1] > outline.gap[0]) away.push([outline.gap[0] + 1, outline.gap[1]]);
    for (const fold of outline.folds) if (fold.last > fold.first && isFolded(fold)) away.push([fold.first + 1, fold.last]);
    away.sort((a, b) => a[0] - b[0]);
    hidden = [];
    let count = 0;
    for (const [first, last] of away) {
      const end = Math.min(last, lines);
      const before = hidden[hidden.length - 1];
      if (before && first <= before[1] + 1) {
        if (end > before[1]) (count += end - before[1]), (before[1] = end);
      } else if (first <= end) {
        hidden.push([first, end, count]);
        count += end - first + 1;
      }
    }
    shownRows = lines - count;
    view.classList.forEach((name) => /^d\d+$/.test(name) && view.classList.remove(name));
    view.classList.add(`d${Math.min(12, Math.max(3, String(lines).length))}`);
  };
  // The last hidden stretch that `before` holds for.
  const lastHidden = (before) => {
    let [low, high] = [0, hidden.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (before(hidden[middle])) low = middle + 1;
      else high = middle;
    }
    return hidden[low - 1];
  };
  const rowOf = (line) => {
    const stretch = lastHidden(([first]) => first <= line);
    if (!stretch) return line - 1;
    const [first, last, before] = stretch;
    return line <= last ? first - 2 - before : line - 1 - (before + last - first + 1);
  };
  const lineAt = (row) => {
    const stretch = lastHidden(([first, , before]) => first - 1 - before <= row);
    return stretch ? row + 1 + stretch[2] + (stretch[1] - stretch[0] + 1) : row + 1;
  };

  // ---- Scrolling. `top` is where the view stands in a log of full height; the element that scrolls is at most
  // HEIGHT_MAX tall, and stands for it: nearby moves are taken as they are, far ones in proportion.

  const space = el("div", { id: "space" });
  const shown = el("div", { id: "shown" });
  let rowHeight = 20;
  let top = 0;
  let told = -1; // the scrollTop that was set here, which is no reader's doing
  let before = 0; // the scrollTop that is heeded
  let following = false; // whether new lines move the view
  let atEnd = false; // whether the view stands at the end, and stays there when heights change
  let drawing = 0;
  let settling = 0;

  const full = () => shownRows * rowHeight;
  const tall = () => Math.min(full(), HEIGHT_MAX);
  const maxTop = () => Math.max(0, full() - view.clientHeight);
  const maxScroll = () => Math.max(0, tall() - view.clientHeight);
  const settle = () => {
    space.style.height = `${tall()}px`;
    // Bring the element to where `top` is in proportion; the rows move with it, so nothing is seen of it.
    const wanted = maxTop() > 0 ? Math.round((top / maxTop()) * maxScroll()) : 0;
    if (Math.abs(view.scrollTop - wanted) > 1) {
      view.scrollTop = wanted;
      told = view.scrollTop;
    }
    before = view.scrollTop;
    draw();
  };
  const goTo = (where) => {
    top = Math.min(maxTop(), Math.max(0, where));
    atEnd = top >= maxTop() - rowHeight;
    settle();
  };
  const settleAfter = () => {
    // It was moved again, and the event of that is yet to come.
    if (Math.abs(view.scrollTop - before) > 1) return;
    settle();
  };
  const scrolled = () => {
    const at = view.scrollTop;
    if (told >= 0 && Math.abs(at - told) <= 1) {
      told = -1;
      before = at;
      return;
    }
    told = -1;
    const moved = at - before;
    before = at;
    if (full() <= HEIGHT_MAX) top = at;
    else if (Math.abs(moved) < 2 * view.clientHeight && at > 0 && at < maxScroll() - 1) top += moved;
    else top = maxScroll() > 0 ? (at / maxScroll()) * maxTop() : 0;
    top = Math.min(maxTop(), Math.max(0, top));
    atEnd = top >= maxTop() - rowHeight;
    following = more && atEnd;
    showFollowing();
    clearTimeout(settling);
    if (full() > HEIGHT_MAX) settling = setTimeout(settleAfter, 150);
    draw();
  };
  view.addEventListener("scroll", scrolled, { passive: true });
  // Before anything that nobody asked for moves the view: a reader may have moved it since the last event, and
  // must not be taken back.
  const heed = () => {
    if (Math.abs(view.scrollTop - before) > 1) scrolled();
  };

  const draw = () => {
    drawing ||= requestAnimationFrame(() => {
      drawing = 0;
      render();
    });
  };

  // ---- Rows.

  let chosen = [0, 0];
  const make = (line) => {
    const html = rows.get(line);
    if (html === undefined) {
      const row = el("div", { className: "l wait", id: `L${line}` });
      row.append(el("a", { className: "n", href: `#L${line}`, textContent: line }));
      row.append(el("time"), el("span", { className: "t", textContent: "\u2026" }));
      return row;
    }
    template.innerHTML = html;
    const row = template.content.firstElementChild || el("div", { className: "l" });
    const fold = heads.get(line);
    if (fold && fold.last > fold.first) {
      const folded = isFolded(fold);
      const size = fold.last - fold.first;
      const button = el("button", { className: "k", type: "button", textContent: "\u203a" });
      button.setAttribute("aria-expanded", String(!folded));
      button.setAttribute("aria-label", `${folded ? "Unfold" : "Fold"} ${fold.name}, ${size} lines`);
      row.querySelector(".t").before(button);
      if (folded) row.querySelector(".t").append(el("span", { className: "many", textContent: `${size} lines` }));
      if (fold.errors) {
        row.querySelector(".t").append(el("span", { className: "many bad", textContent: `${fold.errors} \u2717` }));
      }
    }
    return row;
  };

  const drawn = new Map(); // line -> [element, what it was made of]
  const render = () => {
    const height = view.clientHeight;
    const first = Math.max(0, Math.floor(top / rowHeight) - ROWS_BEYOND);
    const last = Math.min(shownRows, Math.ceil((top + height) / rowHeight) + ROWS_BEYOND);
    const wanted = [];
    for (let row = first; row < last; row++) wanted.push(lineAt(row));
    const keep = new Set(wanted);
    for (const [line, [element]] of drawn) if (!keep.has(line)) element.remove(), drawn.delete(line);
    let place = shown.firstElementChild;
    for (const line of wanted) {
      const fold = heads.get(line);
      const html = rows.get(line);
      const is = fold ? `${isFolded(fold)} ${fold.last} ${fold.errors} ${html}` : html;
      const old = drawn.get(line);
      let element = old?.[0];
      if (!old || old[1] !== is) {
        element = make(line);
        if (old) {
          if (place === old[0]) place = place.nextElementSibling;
          old[0].remove();
        }
        drawn.set(line, [element, is]);
      }
      element.classList.toggle("chosen", chosen[0] <= line && line <= chosen[1]);
      if (element === place) place = place.nextElementSibling;
      else shown.insertBefore(element, place);
    }
    // At most as tall as the log, or rounding would make the element that scrolls taller.
    space.style.height = `${tall()}px`;
    const at = Math.min(view.scrollTop + first * rowHeight - top, tall() - wanted.length * rowHeight);
    shown.style.transform = `translateY(${Math.max(0, at)}px)`;
    highlight();
    fetchMissing(wanted, height);
  };

  let asking = 0;
  const failed = new Map(); // chunk -> when it may be asked for again
  const fetchMissing = (wanted) => {
    if (asking >= ASKS) return;
    const missing = wanted.filter((line) => !rows.has(line));
    if (!missing.length) return;
    // The middle first: that is what somebody looks at.
    const line = missing[missing.length >> 1];
    let from = Math.floor((line - 1) / CHUNK) * CHUNK + 1;
    // A window of long lines may have ended before this one.
    while (from < line && rows.has(from)) from++;
    if ((failed.get(from) ?? 0) > performance.now()) return;
    asking++;
    ask("lines", { from, count: CHUNK }).then((answer) => {
      take(answer);
      if (!answer.rows.length) failed.set(from, performance.now() + 2000);
    }).catch((error) => {
      failed.set(from, performance.now() + 2000);
      toast(error.status === 404 ? "The log was deleted meanwhile." : "The broker does not answer; trying again.");
      setTimeout(draw, 2100);
    }).finally(() => {
      asking--;
      draw();
    });
  };

  const take = (answer) => {
    // Answers may come in another order than they were made. The last line of what was known may have gone on
    // since, and that of an older answer may be half.
    const newer = answer.bytes > bytes || (more && !answer.more);
    const sure = newer || answer.bytes === bytes ? Infinity : answer.lines;
    if (newer) rows.delete(lines);
    answer.rows.forEach((row, at) => answer.from + at < sure && rows.set(answer.from + at, row));
    if (rows.size > KEPT) {
      // What is far from the view goes first.
      const middle = lineAt(Math.floor(top / rowHeight));
      for (const line of rows.keys()) if (Math.abs(line - middle) > KEPT / 4) rows.delete(line);
    }
    if (newer) {
      const grew = answer.lines !== lines;
      [lines, bytes, more] = [answer.lines, answer.bytes, answer.more];
      if (grew) layout();
      size.textContent = `${lines.toLocaleString("en")} ${lines === 1 ? "line" : "lines"}`;
      showFollowing();
    }
  };

  // ---- Groups and marks.

  const refreshOutline = async () => {
    const got = await ask("outline", {}).catch(() => null);
    if (!got) return;
    heed();
    // What somebody looks at stays where it is: lines that were chosen, else the first ones in view.
    const line = here();
    const offset = top - rowOf(line) * rowHeight;
    const [wasChosen, wasAtEnd] = [line === chosen[0], atEnd];
    outline = got;
    heads = new Map(outline.folds.map((fold) => [fold.first, fold]));
    if (wasChosen) unfold(line);
    layout();
    showMarks();
    goTo(wasAtEnd && !wasChosen ? maxTop() : rowOf(line) * rowHeight + offset);
  };

  const showMarks = () => {
    const marks = document.getElementById("marks");
    const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
    marks.hidden = !outline.summary.length;
    if (!marks.hidden) {
      const text = `${plural(outline.errors, "error")}, ${plural(outline.warnings, "warning")}`;
      const items = outline.summary.map(([line, kind, words]) =>
        el("li", { className: kind }, el("a", { href: `#L${line}`, textContent: line }), ` ${words}`));
      marks.replaceChildren(el("summary", { textContent: text }), el("ol", {}, ...items));
    }
    const has = wantedMarks().length > 0;
    previous.disabled = next.disabled = !has;
    previous.parentElement.title = outline.marked ? "" : "Longer than 10 MiB: not marked";
  };
  const wantedMarks = () => {
    const errors = outline.marks.filter(([, kind]) => kind === "e");
    return errors.length ? errors : outline.marks;
  };
  const here = () => (chosen[0] && inView(chosen[0]) ? chosen[0] : lineAt(Math.floor(top / rowHeight)));
  const inView = (line) => {
    const at = rowOf(line) * rowHeight;
    return at >= top - 1 && at + rowHeight <= top + view.clientHeight + 1;
  };
  const step = (stops, forward) => {
    if (!stops.length) return;
    const at = here();
    const after = forward ? stops.find((line) => line > at) : stops.findLast((line) => line < at);
    jump(after ?? (forward ? stops[0] : stops[stops.length - 1]));
  };
  const stepMarks = (forward) => step(wantedMarks().map(([line]) => line), forward);

  // ---- Places: #L12, #L5-L12.

  const choose = (first, last, keep) => {
    chosen = [Math.min(first, last), Math.max(first, last)];
    const hash = chosen[0] === chosen[1] ? `#L${first}` : `#L${chosen[0]}-L${chosen[1]}`;
    if (!keep && location.hash !== hash) history.replaceState(null, "", hash);
    copy.disabled = false;
    draw();
  };
  const unfold = (line) => {
    const over = outline.folds.filter((fold) => fold.first < line && line <= fold.last && isFolded(fold));
    over.forEach((fold) => toggled.set(fold.first, false));
    return over.length > 0;
  };
  const jump = (line, last = line, keep = false) => {
    line = Math.min(Math.max(1, line), Math.max(1, lines));
    const opened = unfold(line);
    if (opened) layout();
    following = false;
    showFollowing();
    choose(line, last, keep);
    if (!inView(line) || opened) goTo((rowOf(line) + 0.5) * rowHeight - view.clientHeight / 3);
  };
  const fromHash = () => {
    const [, first, last] = /^#L(\d+)(?:-L?(\d+))?$/.exec(location.hash) || [];
    if (!first) return false;
    jump(+first, +(last ?? first), true);
    return true;
  };

  view.addEventListener("click", (event) => {
    const button = event.target.closest(".k");
    const number = event.target.closest(".n");
    const line = +(event.target.closest(".l")?.id.slice(1) ?? 0);
    if (button) fold(line);
    else if (number && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (event.shiftKey && chosen[0]) choose(chosen[0], line);
      else choose(line, line);
    }
  });
  const fold = (line) => {
    const fold = heads.get(line);
    if (!fold) return;
    heed();
    toggled.set(line, !isFolded(fold));
    const offset = top - rowOf(line) * rowHeight;
    layout();
    goTo(rowOf(line) * rowHeight + offset);
  };
  document.getElementById("marks").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link) return;
    event.preventDefault();
    jump(+link.textContent);
  });

  // ---- Finding.

  const q = document.getElementById("q");
  let hits = [];
  let looked = ""; // for what
  let whole = true; // whether all of the log was looked through
  let turn = 0;
  const search = async (forward) => {
    const text = q.value;
    if (text === looked) return step(hits, forward);
    looked = text;
    hits = [];
    whole = !text;
    const mine = ++turn;
    const start = here();
    let jumped = false;
    showHits();
    draw();
    for (let from = 1; text && from; ) {
      const found = await ask("find", { q: text, from }).catch(() => null);
      if (mine !== turn) return;
      if (!found) {
        looked = "";
        return toast("The broker did not look for it: press Enter to try again.");
      }
      hits = hits.concat(found.hits).slice(0, HITS_MAX);
      from = hits.length < HITS_MAX ? found.next : undefined;
      whole = !from && !found.next;
      const first = hits.find((line) => line >= start);
      if (!jumped && first) (jumped = true), jump(first);
      showHits();
    }
    if (!jumped && hits.length) jump(hits[0]);
    if (text && !hits.length) toast("Nothing has it.");
  };
  const showHits = () => {
    const at = hits.indexOf(chosen[0]);
    count.textContent = looked ? `${at >= 0 ? `${at + 1}/` : ""}${hits.length}${whole ? "" : "+"}` : "";
  };
  q.form.addEventListener("submit", (event) => {
    event.preventDefault();
    search(true).then(showHits);
  });
  q.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.shiftKey) event.preventDefault(), search(false).then(showHits);
    if (event.key === "Escape") q.value = "", search(true), view.focus();
  });
  // Marks what was found in the rows that are drawn, without touching them.
  const highlight = () => {
    if (!CSS.highlights) return;
    if (!looked) return void CSS.highlights.delete("found");
    const ranges = [];
    const wanted = looked.toLowerCase();
    for (const [element] of drawn.values()) {
      const text = element.querySelector(".t");
      const all = text?.textContent.toLowerCase() ?? "";
      if (!all.includes(wanted) || all.length !== text.textContent.length) continue;
      const nodes = [];
      const walker = document.createTreeWalker(text, NodeFilter.SHOW_TEXT);
      for (let at = 0; walker.nextNode(); at += walker.currentNode.length) nodes.push([at, walker.currentNode]);
      const place = (at) => {
        const [start, node] = nodes.findLast(([start]) => start <= at);
        return [node, at - start];
      };
      for (let at = all.indexOf(wanted); at >= 0 && ranges.length < 1000; at = all.indexOf(wanted, at + wanted.length)) {
        const range = document.createRange();
        range.setStart(...place(at));
        const [node, last] = place(at + wanted.length - 1);
        range.setEnd(node, last + 1);
        ranges.push(range);
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  };

  // ---- Following.

  const follow = async () => {
    let late = 0;
    while (more) {
      // The last line may have gone on.
      const from = Math.max(1, lines);
      const known = bytes;
      const asked = performance.now();
      try {
        const answer = await ask("lines", { from, count: CHUNK, known });
        late = 0;
        heed();
        const changed = answer.bytes !== known || !answer.more;
        take(answer);
        if (changed) {
          if (following) goTo(maxTop());
          else draw();
          due = true;
        }
        // A broker that cannot hold the question is asked once a second; one that held it in vain, at once.
        await pause(changed ? POLL_MS : asked + 1000 - performance.now());
      } catch (error) {
        if (error.status === 404) return toast("The log was deleted meanwhile.");
        late = Math.min(10000, late * 2 + 500);
        await pause(late);
      }
    }
    await Promise.all([refreshOutline(), refreshHead()]);
  };
  // Groups, marks and the head of the page follow more slowly than lines.
  let due = false;
  const tend = async () => {
    while (more || open()) {
      await pause(3000);
      if (document.hidden) continue;
      if (due) (due = false), await refreshOutline();
      await refreshHead();
    }
  };
  const FINAL = ["passed", "failed", "cancelled", "superseded", "lost", "timed_out"];
  const open = () => !FINAL.includes(document.querySelector("#head .title")?.dataset.phase);
  const refreshHead = async () => {
    const response = await fetch(`${base}?head=1`).catch(() => null);
    if (!response?.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const [old, fresh] = [document.getElementById("head"), page.getElementById("head")];
    if (!fresh || old.contains(document.activeElement)) return;
    const wasOpen = old.querySelector("details")?.open;
    old.replaceChildren(...fresh.childNodes);
    if (wasOpen) old.querySelector("details").open = true;
    document.title = page.title;
    const latest = old.querySelector(".title")?.dataset.attempt;
    if (latest && latest !== attempt && !tools.querySelector(".newer")) {
      tools.append(el("a", { className: "newer", href: base, textContent: `Attempt ${latest} has begun` }));
    }
  };

  // ---- Buttons and keys.

  const tools = document.getElementById("tools");
  const size = document.getElementById("size");
  const count = el("output", { id: "count" });
  const button = (id, text, title, press) => {
    const made = el("button", { id, type: "button", textContent: text, title });
    made.setAttribute("aria-label", title);
    made.addEventListener("click", press);
    return made;
  };
  const previous = button("previous", "\u2191", "Previous error (p)", () => stepMarks(false));
  const next = button("next", "\u2193", "Next error (n)", () => stepMarks(true));
  previous.disabled = next.disabled = true;
  const times = button("times", "Times", "Show times (t)", () => setTimes(!view.classList.contains("times")));
  const bottom = button("follow", "Follow", "Follow the end (f)", () => {
    following = more;
    goTo(maxTop());
    showFollowing();
  });
  const copy = button("copy", "Copy link", "Copy a link to the chosen lines (c)", async () => {
    await navigator.clipboard?.writeText(location.href).then(() => toast("Copied."), () => toast(location.href));
  });
  copy.disabled = true;
  copy.hidden = !navigator.clipboard;
  const setTimes = (on) => {
    view.classList.toggle("times", on);
    times.setAttribute("aria-pressed", String(on));
    try {
      localStorage.setItem("times", on ? "1" : "");
    } catch {
      // A browser that keeps nothing shows times until the page is left.
    }
  };
  const showFollowing = () => {
    bottom.textContent = more ? "Follow" : "End";
    bottom.setAttribute("aria-pressed", String(more && following));
  };
  const toast = (text) => {
    document.getElementById("toast")?.remove();
    const made = el("div", { id: "toast", textContent: text });
    made.setAttribute("role", "status");
    document.body.append(made);
    setTimeout(() => made.remove(), 4000);
  };
  tools.append(
    count,
    el("span", { className: "group" }, el("span", { className: "word", textContent: "Errors" }), previous, next),
    times, bottom, copy,
  );
  const keys = {
    n: () => stepMarks(true),
    p: () => stepMarks(false),
    t: () => times.click(),
    f: () => bottom.click(),
    c: () => copy.click(),
    g: () => goTo(0),
    G: () => goTo(maxTop()),
    "/": () => q.focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (keys[event.key]) event.preventDefault(), keys[event.key]();
  });
  addEventListener("hashchange", fromHash);
  new ResizeObserver(() => {
    heed();
    goTo(atEnd ? maxTop() : top);
  }).observe(view);

  // ---- Begin.

  const asked = new URLSearchParams(location.search);
  document.body.classList.add("live");
  document.querySelector(".hits")?.remove();
  view.replaceChildren(space);
  space.append(shown);
  rowHeight = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 20;
  space.style.height = `${Math.min(lines * rowHeight, HEIGHT_MAX)}px`;
  let wantsTimes = "";
  try {
    wantsTimes = localStorage.getItem("times") ?? "";
  } catch {
    // As above.
  }
  setTimes(wantsTimes === "1");
  layout();
  if (!fromHash()) {
    if (asked.has("from")) goTo(rowOf(+asked.get("from")) * rowHeight);
    else (following = more), goTo(maxTop());
  }
  showFollowing();
  render();
  performance.mark("rows");
  refreshOutline();
  if (q.value) search(true).then(showHits);
  follow();
  tend();
})();
