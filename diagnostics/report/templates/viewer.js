// The token viewer. Reads the arrays beside it and builds what is near the window; text becomes text
// nodes alone, never markup. Nothing is fetched.
(function () {
  "use strict";

  // Control signs, marks of direction, letters of no width: shown by name.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\u{e0000}-\u{e0fff}]/u;
  const SIGNS = new RegExp("[ \\t\\n]|" + HIDDEN.source, "gu");
  const CONTROLS = ("NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC "
    + "FS GS RS US").split(" ");
  const SHORT = 60; // letters of a token shown in the text; the panel has more
  const QUADRANTS = ["", "high H, high KL", "high H, low KL", "low H, high KL", "low H, low KL"];

  function node(tag, name, ...inside) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...inside);
    return made;
  }

  function signName(letter) {
    const code = letter.codePointAt(0);
    if (code < 0x20) return CONTROLS[code];
    return "U+" + code.toString(16).toUpperCase().padStart(4, "0");
  }

  // A text as nodes: spaces and breaks that can be seen, hidden letters by name.
  function written(text) {
    const made = document.createDocumentFragment();
    let from = 0;
    if (!text) made.append(node("span", "tv-sign", "empty"));
    if (/^\p{M}/u.test(text)) made.append("\u25cc");
    for (const found of text.matchAll(SIGNS)) {
      if (found.index > from) made.append(text.slice(from, found.index));
      const letter = found[0];
      if (letter === " ") made.append(node("span", "tv-sp", letter));
      else if (letter === "\n") made.append(node("span", "tv-nl", letter));
      else if (letter === "\t") made.append(node("span", "tv-tab", letter));
      else made.append(node("span", "tv-sign", signName(letter)));
      from = found.index + letter.length;
    }
    made.append(text.slice(from));
    return made;
  }

  // A text for labels: one line, hidden letters by name.
  function plain(text) {
    return text.replace(SIGNS, (letter) =>
      letter === " " ? " " : letter === "\n" ? "\u21b5" : letter === "\t" ? "\u2192" : signName(letter));
  }

  function spoken(text) {
    if (text.trim()) return plain(text);
    return [...text].map((s) => (s === " " ? "space" : s === "\n" ? "line break" : s === "\t" ? "tab" : signName(s))).join(" ") || "empty";
  }

  function letters(count) {
    return count.toLocaleString("en") + " letters";
  }

  function symbol(name) {
    const [base, mark, rest] = name.split(/([\^_])/);
    return mark ? [base, node(mark === "^" ? "sup" : "sub", "", rest)] : [base];
  }

  function number(value, digits) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    const text = size < 1e-3 || size >= 1e6 ? size.toExponential(digits - 1) : size.toPrecision(digits);
    return (value < 0 ? "\u2212" : "") + text.replace("e-", "e\u2212").replace("e+", "e");
  }

  function percent(share, digits) {
    const value = 100 * share, places = digits < 4 ? 0 : 2, least = 10 ** -places;
    if (value < least / 2) return `<${least} %`;
    return value >= 100 - least / 2 ? `>${100 - least} %` : value.toFixed(places) + " %";
  }

  async function inflated(text) {
    const letters = atob(text), packed = new Uint8Array(letters.length);
    for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Adds a bundle's arrays to others by name; each is unpacked when it is first asked for.
  async function add(arrays, bundle, length) {
    const bytes = await inflated(bundle.bytes);
    bundle.bytes = "";
    let from = 0;
    for (const [name, kind, width] of bundle.arrays) {
      const first = from, count = length(name);
      const get = () => {
        const value = unpack(bytes, first, kind, width, count);
        Object.defineProperty(arrays, name, { value });
        return value;
      };
      Object.defineProperty(arrays, name, { get, configurable: true });
      from += width * count;
    }
    if (from !== bytes.length) throw new Error("its length is wrong");
  }

  // Bytes lie apart, all lowest ones first.
  function unpack(bytes, first, kind, width, count) {
    const values = new Uint32Array(count);
    for (let place = 0, from = first; place < width; place++) {
      const shift = 8 * (kind === "float" ? 4 - width + place : place);
      for (let i = 0; i < count; i++) values[i] |= bytes[from++] << shift;
    }
    return kind === "float" ? new Float32Array(values.buffer) : kind === "share" ? shares(values, width) : values;
  }

  function shares(values, width) {
    const steps = 256 ** width - 1;
    return Float32Array.from(values, (value) => (value / steps) ** 2);
  }

  function start(root) {
    const part = (name) => root.querySelector(`[data-tv="${name}"]`);
    const data = JSON.parse(part("data").textContent);
    part("data").textContent = "";
    if (typeof DecompressionStream === "undefined") return fail(part, "a newer browser (of 2023 or later)");
    const count = data.contexts.reduce((sum, context) => sum + context.count, 0), arrays = {};
    const length = (name) => (/^(top|prob)\./.test(name) ? data.most : 1) * count;
    return add(arrays, data.measures, length)
      .then(() => new Viewer(root, part, data, arrays, count))
      .then((viewer) => add(arrays, data.tops, length).then(() => viewer.describe(viewer.pointed)))
      .catch((error) => {
        fail(part, "its data, which cannot be read (" + error.message + "): write the file again");
        throw error;
      });
  }

  function fail(part, wanted) {
    part("failed").textContent = "The token viewer needs " + wanted + ".";
    part("failed").hidden = false;
  }

  class Viewer {
    constructor(root, part, data, arrays, count) {
      Object.assign(this, { root, part, data, arrays, count });
      this.prefix = root.dataset.prefix;
      this.special = new Set(data.tokens.special);
      this.pieces = new Map(); // token -> its nodes, to be cloned
      this.matched = new Uint8Array(this.count).fill(1);
      this.selected = -1;
      this.makeContexts();
      this.watch();
      root.querySelector(".tv-app").hidden = false;
      this.recount();
      this.recolour();
      this.sort();
      this.describe(-1);
      this.followLink();
    }

    choice(name) { return this.part(name).value; }
    get scale() { return this.data.scales[+this.choice("scale")]; }
    get checkpoint() { return +this.choice("checkpoint"); }
    values(scale) { return this.arrays[scale.name === "gain" ? "gain." + this.checkpoint : scale.name]; }

    // --- contexts -------------------------------------------------------------------------------

    makeContexts() {
      let first = 0;
      this.contexts = this.data.contexts.map((about) => {
        const article = node("article", "tv-context");
        article.id = `${this.prefix}-c${about.index}`;
        const context = { about, article, first, end: first + about.count, list: null, stale: true };
        article.tvContext = context;
        first = context.end;
        return context;
      });
      this.owner = new Uint32Array(this.count);
      this.contexts.forEach((context, place) => this.owner.fill(place, context.first, context.end));
    }

    guessHeights() {
      const width = Math.max(200, this.part("list").clientWidth - 40);
      for (const { article, first, end } of this.contexts) {
        let lines = 1, run = 0;
        for (let i = first; i < end; i++) {
          const text = this.data.tokens.texts[this.arrays.token[i]];
          run += 7.6 * Math.min(text.length, SHORT);
          if (text.includes("\n")) { lines += Math.ceil(run / width); run = 0; }
        }
        article.style.containIntrinsicHeight = `auto ${Math.round(95 + 28 * (lines + run / width))}px`;
      }
    }

    watch() {
      this.guessHeights();
      const boxed = this.root.classList.contains("tv-boxed");
      this.near = new Set();
      this.observer = new IntersectionObserver((entries) => {
        for (const entry of entries) {
          const context = entry.target.tvContext;
          if (entry.isIntersecting) { this.near.add(context); this.refresh(context); }
          else this.near.delete(context);
        }
      }, { root: boxed ? this.part("list") : null, rootMargin: "900px 0px" });
      for (const { article } of this.contexts) this.observer.observe(article);
      for (const name of ["scale", "checkpoint", "sort", "quadrant", "selector", "budget"]) {
        this.part(name).addEventListener("change", () => this.changed(name));
      }
      this.part("signs").addEventListener("change", (event) => this.root.classList.toggle("tv-plain", !event.target.checked));
      const list = this.part("list");
      list.addEventListener("mouseover", (event) => this.point(this.tokenAt(event.target)));
      list.addEventListener("mouseleave", () => this.point(this.selected));
      list.addEventListener("click", (event) => this.choose(this.tokenAt(event.target)));
      list.addEventListener("focusin", (event) => this.choose(this.tokenAt(event.target)));
      list.addEventListener("keydown", (event) => this.key(event));
      this.part("panel").addEventListener("keydown", (event) => { if (event.key === "Escape") this.clear(); });
      window.addEventListener("hashchange", () => this.followLink());
    }

    changed(name) {
      if (name === "selector") this.part("budget").disabled = !this.choice("selector");
      if (["quadrant", "selector", "budget"].includes(name)) this.filter();
      if (name === "checkpoint") this.recount();
      if (name === "sort" || name === "checkpoint") this.sort();
      this.recolour();
      this.describe(this.selected);
    }

    refresh(context) {
      if (!context.list) this.build(context);
      if (context.stale) this.paint(context);
    }

    build(context) {
      const { about, article } = context;
      const list = node("div", "tv-text");
      list.setAttribute("role", "listbox");
      list.setAttribute("aria-label", `Tokens of context ${about.index}`);
      list.setAttribute("aria-orientation", "horizontal");
      for (let i = context.first; i < context.end; i++) {
        if (this.arrays.position[i] !== (i > context.first ? this.arrays.position[i - 1] + 1 : 0)) list.append(gap());
        list.append(this.token(i));
      }
      const title = node(`h${this.root.dataset.level}`, "tv-title", node("strong", "", `Context ${about.index}`),
        node("span", "", "prompt ", node("bdi", "", plain(about.prompt_id.slice(0, 80)))), node("span", "", `${about.count.toLocaleString("en")} positions`));
      context.mean = node("span", "");
      title.append(context.mean);
      article.replaceChildren(title);
      if (about.prompt) article.append(promptOf(about));
      article.append(list);
      context.list = list;
      context.stop = -1;
    }

    token(i) {
      const token = this.arrays.token[i];
      const made = node("span", "tv-token", this.piece(token).cloneNode(true));
      made.id = this.idOf(i);
      made.tvPlace = i;
      made.setAttribute("role", "option");
      made.setAttribute("aria-selected", "false");
      made.tabIndex = -1;
      const text = this.data.tokens.texts[token];
      if (!text.trim() || HIDDEN.test(text)) made.setAttribute("aria-label", spoken(text.slice(0, SHORT)));
      return made;
    }

    piece(token) {
      if (!this.pieces.has(token)) this.pieces.set(token, this.cut(token, SHORT));
      return this.pieces.get(token);
    }

    // A token's text as nodes, cut at so many letters; a cut one says how long it is.
    cut(token, most) {
      const { texts, lengths } = this.data.tokens, text = texts[token], whole = lengths[token] || text.length;
      const made = written(whole > most ? text.slice(0, most).replace(/[\ud800-\udbff]$/, "") : text);
      if (whole > most) made.append("\u2026", node("span", "tv-sign", letters(whole)));
      return made;
    }

    idOf(i) {
      return `${this.prefix}-c${this.contexts[this.owner[i]].about.index}-p${this.arrays.position[i]}`;
    }

    tokenAt(target) {
      const found = target.closest && target.closest(".tv-token");
      return found ? found.tvPlace : -1;
    }

    // --- colours --------------------------------------------------------------------------------

    stepClass(scale, value) {
      const share = Math.min(Math.abs(value) / scale.limit, 1);
      const step = Math.floor(this.data.steps * (scale.root ? Math.sqrt(share) : share) + 0.5);
      const hue = value < 0 ? scale.down : scale.up;
      return step && hue ? `tv-${hue}${step}` : "";
    }

    paint(context) {
      const scale = this.scale, values = this.values(scale);
      for (const token of context.list.children) {
        const i = token.tvPlace;
        if (i === undefined) continue;
        const on = this.matched[i];
        const colour = on ? this.stepClass(scale, values[i]) : "tv-off";
        token.className = "tv-token " + colour + (this.special.has(this.arrays.token[i]) ? " tv-special" : "");
      }
      context.mean.textContent = `mean gain ${number(context.gain, 3)} nats`;
      this.setStop(context, this.selected >= context.first && this.selected < context.end ? this.selected : this.firstOn(context));
      context.stale = false;
    }

    recolour() {
      for (const context of this.contexts) context.stale = true;
      for (const context of this.near) if (!context.article.hidden) this.refresh(context);
      this.legend();
    }

    legend() {
      const scale = this.scale, steps = this.data.steps, at = (share) => scale.limit * (scale.root ? share * share : share);
      const bar = node("div", "tv-bar"), ticks = node("div", "tv-ticks");
      const from = scale.down ? -steps : 0;
      for (let step = from; step <= steps; step++) {
        const hue = step < 0 ? scale.down : scale.up;
        bar.append(node("i", step ? `tv-${hue}${Math.abs(step)}` : ""));
      }
      const shown = scale.down ? [-1, -0.5, 0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1];
      const texts = shown.map((share) => number(Math.sign(share) * +at(Math.abs(share)).toPrecision(3), 3).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, ""));
      if (scale.unit) { texts[0] = (scale.down ? "\u2264 " : "") + texts[0]; texts[4] = "\u2265 " + texts[4]; }
      ticks.append(...texts.map((text) => node("span", "", text)));
      const words = node("p", "tv-words", node("strong", "", ...symbol(scale.symbol)), ` ${scale.label}${scale.unit ? ", " + scale.unit : ""}. ${scale.more}.`);
      if (scale.root) words.append(" Square-root scale.");
      this.part("legend").setAttribute("role", "group");
      this.part("legend").setAttribute("aria-label", `Legend: ${scale.label}, from ${texts[0]} to ${texts[4]}`);
      this.part("legend").replaceChildren(bar, ticks, words);
    }

    // --- filters and order ----------------------------------------------------------------------

    filter() {
      const quadrant = +this.choice("quadrant"), selector = this.choice("selector");
      const [state, budget] = this.choice("budget").split(" ");
      const bit = selector ? this.data.masks.findIndex(([name, share]) => name === selector && share === +budget) : -1;
      const { quadrant: quadrants, kept } = this.arrays;
      for (let i = 0; i < this.count; i++) {
        const fits = !selector || ((kept[i] >>> bit) & 1) === (state === "kept" ? 1 : 0);
        this.matched[i] = fits && (!quadrant || quadrants[i] === quadrant) ? 1 : 0;
      }
      this.recount();
    }

    recount() {
      const gain = this.arrays["gain." + this.checkpoint];
      let positions = 0, contexts = 0, sum = 0;
      for (const context of this.contexts) {
        let here = 0;
        for (let i = context.first; i < context.end; i++) {
          if (this.matched[i]) { here++; sum += gain[i]; }
        }
        context.gain = context.about.gain[this.checkpoint];
        context.article.hidden = !here;
        positions += here;
        contexts += here > 0;
      }
      const total = (some, all, what) => node("span", "", node("strong", "", some.toLocaleString("en")), ` of ${all.toLocaleString("en")} ${what}`);
      this.part("count").replaceChildren(total(positions, this.count, "positions"), " in ", total(contexts, this.contexts.length, "contexts"),
        positions ? `; mean gain ${number(sum / positions, Math.min(3, this.data.digits))} nats` : "");
    }

    sort() {
      const order = this.choice("sort"), sorted = [...this.contexts];
      if (order === "down") sorted.sort((a, b) => b.gain - a.gain);
      if (order === "up") sorted.sort((a, b) => a.gain - b.gain);
      this.order = sorted;
      this.part("list").replaceChildren(...sorted.map((context) => context.article));
    }

    firstOn(context) {
      for (let i = context.first; i < context.end; i++) if (this.reachable(i)) return i;
      return context.first;
    }

    reachable(i) {
      return this.matched[i] && !(this.root.classList.contains("tv-plain") && this.special.has(this.arrays.token[i]));
    }

    // --- choosing a position --------------------------------------------------------------------

    element(i) {
      const context = this.contexts[this.owner[i]];
      this.refresh(context);
      return document.getElementById(this.idOf(i));
    }

    setStop(context, i) {
      if (context.stop >= 0) document.getElementById(this.idOf(context.stop))?.setAttribute("tabindex", "-1");
      context.stop = i;
      const element = [...context.list.children].find((token) => token.tvPlace === i);
      if (element) element.tabIndex = 0;
    }

    point(i) {
      if (i === this.pointed) return;
      if (i < 0 && this.selected >= 0) i = this.selected;
      this.describe(i);
    }

    choose(i) {
      if (i < 0 || i === this.selected) return;
      const before = this.selected;
      this.selected = i;
      if (before >= 0) document.getElementById(this.idOf(before))?.setAttribute("aria-selected", "false");
      const element = this.element(i);
      element.setAttribute("aria-selected", "true");
      this.setStop(this.contexts[this.owner[i]], i);
      if (document.activeElement !== element) element.focus({ preventScroll: true });
      this.describe(i);
      this.link(`#${this.idOf(i)}`);
      this.announce(i);
    }

    clear() {
      if (this.selected < 0) return;
      document.getElementById(this.idOf(this.selected))?.setAttribute("aria-selected", "false");
      this.selected = -1;
      this.describe(-1);
      this.part("live").textContent = "";
      this.link(location.pathname + location.search);
    }

    link(address) {
      try { history.replaceState(null, "", address); } catch { /* a page without an address of its own */ }
    }

    followLink() {
      const found = location.hash.match(new RegExp(`^#${this.prefix}-c(\\d+)-p(\\d+)$`));
      if (!found) return;
      const [index, position] = [+found[1], +found[2]];
      const context = this.contexts.find(({ about }) => about.index === index);
      if (!context) return this.elsewhere(index, position);
      let i = context.first;
      while (i < context.end && this.arrays.position[i] !== position) i++;
      if (i === context.end) return;
      if (context.article.hidden || !this.matched[i]) this.unfilter();
      this.choose(i);
      this.reveal(i);
    }

    unfilter() {
      for (const [name, all] of [["quadrant", "0"], ["selector", ""]]) this.part(name).value = all;
      this.changed("selector");
    }

    // Heights near it become known as it comes near, so it is brought there until it stays.
    reveal(i, tries = 6) {
      this.element(i).scrollIntoView({ block: "center" });
      if (tries) requestAnimationFrame(() => this.reveal(i, tries - 1));
    }

    elsewhere(index, position) {
      const other = this.data.files.find(([, first, last]) => first <= index && index <= last);
      const where = node("p", "tv-hint", `Context ${index} is not in this file. `);
      if (other) {
        const link = node("a", "", "Open the file that has it");
        link.href = encodeURIComponent(other[0]) + `#${this.prefix}-c${index}-p${position}`;
        where.append(link);
      }
      this.part("panel").replaceChildren(where);
    }

    key(event) {
      const i = this.tokenAt(event.target);
      if (i < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
      const moves = {
        ArrowRight: () => this.next(i, 1), ArrowLeft: () => this.next(i, -1),
        ArrowDown: () => this.line(i, 1), ArrowUp: () => this.line(i, -1),
        Home: () => this.edge(i, 1), End: () => this.edge(i, -1),
        PageDown: () => this.neighbour(i, 1), PageUp: () => this.neighbour(i, -1),
      };
      if (event.key === "Escape") { event.preventDefault(); return this.clear(); }
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); return this.choose(i); }
      if (!(event.key in moves)) return;
      event.preventDefault();
      const to = moves[event.key]();
      if (to < 0 || to === undefined) return;
      this.choose(to);
      this.element(to).scrollIntoView({ block: "nearest" });
    }

    next(i, by) {
      const { first, end } = this.contexts[this.owner[i]];
      for (let to = i + by; to >= first && to < end; to += by) if (this.reachable(to)) return to;
      return -1;
    }

    edge(i, by) {
      const { first, end } = this.contexts[this.owner[i]];
      return this.scan(by > 0 ? first : end - 1, by);
    }

    scan(i, by) {
      return this.reachable(i) ? i : this.next(i, by);
    }

    // The nearest token of the line above or below.
    line(i, by) {
      const here = this.element(i).getClientRects()[0];
      let best = -1, top = null, nearest = Infinity;
      for (let to = this.next(i, by); to >= 0; to = this.next(to, by)) {
        const box = this.element(to).getClientRects()[0];
        if (!box || (box.top - here.top) * by < here.height / 2) continue;
        if (top === null) top = box.top;
        if (Math.abs(box.top - top) > here.height / 2) break;
        const far = Math.abs(box.left - here.left);
        if (far < nearest) [best, nearest] = [to, far];
      }
      return best;
    }

    neighbour(i, by) {
      const shown = this.order.filter(({ article }) => !article.hidden);
      const context = shown[shown.indexOf(this.contexts[this.owner[i]]) + by];
      if (!context) return -1;
      this.refresh(context);
      return this.firstOn(context);
    }

    // --- the panel ------------------------------------------------------------------------------

    describe(i) {
      this.pointed = i;
      const panel = this.part("panel");
      if (i < 0) {
        panel.replaceChildren(node("p", "tv-hint", "Point at a token, or choose one and walk with the arrow keys: its numbers and what the models would say there appear here."));
        return;
      }
      const about = this.contexts[this.owner[i]].about, digits = this.data.digits;
      const which = node("p", "tv-which", node("bdi", "", this.cut(this.arrays.token[i], 200)));
      if (i === this.selected) which.append(this.closer());
      const where = node("p", "tv-where", `context ${about.index}, position ${this.arrays.position[i]}, token ${this.data.tokens.ids[this.arrays.token[i]]}, `, this.linkTo(i));
      const numbers = node("dl", "tv-numbers");
      for (const scale of this.data.scales) numbers.append(pair(symbol(scale.symbol), number(this.values(scale)[i], digits), scale.label));
      const after = this.arrays["kl." + this.checkpoint];
      if (after) numbers.children[4].after(pair(symbol("KL_\u03c4"), number(after[i], digits), "divergence after training"));
      const quadrant = this.arrays.quadrant[i];
      numbers.append(pair(["quadrant"], "Q" + quadrant, QUADRANTS[quadrant]));
      panel.replaceChildren(which, where, numbers, this.keptBy(i), this.tops(i));
    }

    closer() {
      const button = node("button", "tv-close", "close");
      button.type = "button";
      button.addEventListener("click", () => this.clear());
      return button;
    }

    linkTo(i) {
      const link = node("a", "", "link");
      link.href = `#${this.idOf(i)}`;
      link.setAttribute("aria-label", "link to this position");
      return link;
    }

    keptBy(i) {
      const smallest = new Map();
      this.data.masks.forEach(([name, budget], bit) => {
        if ((this.arrays.kept[i] >>> bit) & 1 && !(smallest.get(name) <= budget)) smallest.set(name, budget);
      });
      const made = node("p", "tv-kept", smallest.size ? "Kept by " : "Kept by no selector at 10 % or less.");
      [...smallest].forEach(([name, budget], place) => {
        made.append(place ? ", " : "", node("b", "", name), ` from\u00a0${+(100 * budget).toPrecision(6)}\u00a0%`);
      });
      return made;
    }

    // Place of the token that stands at a rank of a model's list: ranks point into an earlier list.
    topToken(model, i, rank) {
      const most = this.data.most, value = this.arrays["top." + model][i * most + rank];
      if (model === 0) return value;
      return value < most ? this.topToken(Math.min(model - 1, 1), i, value) : value - most;
    }

    tops(i) {
      const made = node("div", "tv-tops"), { models, most } = this.data;
      if (!("top.0" in this.arrays)) return made; // they come a moment after the measures
      [0, 1, 2 + this.checkpoint].forEach((model, place) => {
        const name = place === 0 ? ["teacher"] : place === 1 ? [...symbol("\u03b8_0"), " (before)"] : [plain(models[model]) + " (after)"];
        const list = node("ol", "");
        for (let rank = 0; rank < most; rank++) list.append(this.topRow(model, i, rank));
        made.append(node("div", `tv-model${place}`, node("p", "", ...name), list));
      });
      return made;
    }

    topRow(model, i, rank) {
      const token = this.topToken(model, i, rank), share = this.arrays["prob." + model][i * this.data.most + rank];
      const bar = node("i", ""), track = node("span", "tv-track", bar);
      track.setAttribute("aria-hidden", "true");
      bar.style.width = `${100 * share}%`;
      const same = token === this.arrays.token[i];
      const row = node("li", same ? "tv-same" : "", track, node("bdi", "", this.cut(token, 40)), node("span", "", percent(share, this.data.digits)));
      if (same) row.title = "the token that stands here";
      return row;
    }

    announce(i) {
      const { about } = this.contexts[this.owner[i]], { texts } = this.data.tokens, scale = this.scale;
      const named = (token) => spoken(texts[token].slice(0, SHORT));
      const said = [`Position ${this.arrays.position[i]} of context ${about.index}: ${named(this.arrays.token[i])}. `
        + `${scale.label} ${number(this.values(scale)[i], 3)}${scale.unit ? " " + scale.unit : ""}, quadrant ${this.arrays.quadrant[i]}.`];
      if ("top.0" in this.arrays) {
        said.push(`The teacher's first: ${named(this.topToken(0, i, 0))}, ${percent(this.arrays["prob.0"][i * this.data.most], 2)}.`);
      }
      this.part("live").textContent = said.join(" ");
    }
  }

  function gap() {
    const made = node("span", "tv-gap", "\u22ef");
    made.setAttribute("aria-hidden", "true");
    made.title = "positions that carry no loss";
    return made;
  }

  function pair(term, value, label) {
    const made = node("div", "", node("dt", "", ...term), node("dd", "", value));
    made.title = label;
    return made;
  }

  function promptOf(about) {
    const cut = about.prompt_length > about.prompt.length;
    const short = plain(about.prompt.slice(0, 200)).replace(/\s+/g, " ");
    const whole = node("div", "", written(about.prompt));
    if (cut) whole.append("\u2026 ", node("span", "tv-sign", letters(about.prompt_length)));
    return node("details", "tv-prompt", node("summary", "", node("b", "", "Prompt "), node("bdi", "", short)), whole);
  }

  for (const root of document.querySelectorAll(".tv-root")) {
    if (!root.dataset.started) {
      root.dataset.started = "yes";
      start(root);
    }
  }
})();
