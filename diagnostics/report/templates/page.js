// What a page does beyond being read: themes, contents, tables that sort, copy and save. Without it all is there to read.
"use strict";
(() => {
  const make = (tag, values = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), values);
    element.append(...inside);
    return element;
  };
  const said = make("p", { className: "hidden" });
  said.setAttribute("role", "status");
  document.querySelector("main").append(said);

  // Themes: auto follows the system.
  const THEMES = ["auto", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem("theme", theme); } catch { /* a page of a file may keep nothing */ } };
  const button = make("button", { type: "button", className: "theme" });
  const show = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.value = theme;
  };
  show(THEMES.includes(stored()) ? stored() : "auto");
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(button.value) + 1) % THEMES.length];
    show(next);
    store(next);
  });
  const side = document.querySelector(".side");
  side.append(button);

  // Contents: open at the side, folded above; the part that is being read is marked.
  const contents = document.querySelector(".contents");
  if (contents) {
    const wide = matchMedia("(min-width: 75rem)");
    const fold = () => { contents.open = wide.matches; };
    fold();
    wide.addEventListener("change", fold);
    contents.addEventListener("click", (event) => {
      if (event.target.closest("a") && !wide.matches) contents.open = false;
    });
    contents.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !wide.matches) {
        contents.open = false;
        contents.querySelector("summary").focus();
      }
    });
    const links = [...contents.querySelectorAll("a")];
    const targets = links.map((link) => document.getElementById(link.hash.slice(1)));
    let waiting = false;
    const mark = () => {
      waiting = false;
      const end = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
      let last = 0;
      targets.forEach((target, i) => {
        if (target && (end ? target.getBoundingClientRect().top < innerHeight : target.getBoundingClientRect().top < 120)) last = i;
      });
      links.forEach((link, i) => {
        if (i === last) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
      contents.querySelector(".here").textContent = links[last].textContent;
      if (wide.matches && side.scrollHeight) keep(links[last]);
    };
    const keep = (link) => {
      const box = contents.getBoundingClientRect(), at = link.getBoundingClientRect();
      if (at.top < box.top || at.bottom > box.bottom) contents.scrollTop += at.top - box.top - box.height / 2;
    };
    addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(mark); } }, { passive: true });
    mark();
  }

  // Tables
  const texts = new Intl.Collator("en", { numeric: true });
  const number = (cell) => Number.parseFloat(cell.dataset.v); // the first of its numbers; NaN: none
  const lacking = (cell) => !cell.dataset.v && ["–", ""].includes(cell.textContent.trim());
  const compare = (a, b, sign) => {
    if (lacking(a) || lacking(b)) return lacking(a) - lacking(b);
    const x = number(a), y = number(b);
    if (x === x && y === y) return sign * (x - y);
    if (x === x || y === y) return x === x ? -1 : 1;
    return sign * texts.compare(a.textContent, b.textContent);
  };
  const sort = (table, column, header) => {
    const order = { none: "ascending", ascending: "descending", descending: "none" }[header.getAttribute("aria-sort") ?? "none"];
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    if (order !== "none") header.setAttribute("aria-sort", order);
    const rows = [...table.tBodies[0].rows].sort((a, b) => a.dataset.row - b.dataset.row);
    if (order !== "none") {
      const sign = order === "ascending" ? 1 : -1;
      rows.sort((a, b) => compare(a.cells[column], b.cells[column], sign));
    }
    table.tBodies[0].append(...rows);
    said.textContent = order === "none" ? "In the first order" : `Sorted by ${header.textContent}, ${order}`;
  };

  const plain = (text) => text.replace(/\s+/g, " ").trim().replace(/−(?=[\d.])/g, "-");
  const shown = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => plain(cell.textContent)));
  const exact = (table) => {
    const heads = [...table.tHead.rows[0].cells].map((head) => {
      const parts = head.dataset.parts?.split(",") ?? [""];
      return parts.map((part) => plain(head.textContent) + part.replace("_", " "));
    });
    const line = (row) => [...row.cells].flatMap((cell, i) => {
      if (heads[i].length === 1 && !cell.dataset.v) return [lacking(cell) ? "" : plain(cell.textContent)];
      const values = (cell.dataset.v ?? "").split(" ").map((value) => (value === "nan" ? "" : value));
      return heads[i].map((_, k) => values[k] ?? "");
    });
    return [heads.flat(), ...[...table.tBodies[0].rows].map(line)];
  };
  const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // no clipboard for this page, as of some files: the older way
      const area = make("textarea", { className: "hidden copied", value: text, readOnly: true });
      document.body.append(area);
      const before = document.activeElement;
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      before?.focus();
      return done;
    }
  };
  const say = (pressed, words) => {
    const before = pressed.dataset.words ?? (pressed.dataset.words = pressed.textContent);
    pressed.textContent = words;
    said.textContent = words;
    clearTimeout(pressed.timer);
    pressed.timer = setTimeout(() => { pressed.textContent = before; }, 1600);
  };
  const save = (name, text) => {
    const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    make("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };

  const tools = (box, table, label) => {
    const copying = make("button", { type: "button", title: "As shown, separated by tabs" }, "Copy");
    copying.addEventListener("click", async () => {
      const done = await copy(shown(table).map((row) => row.join("\t")).join("\n") + "\n");
      say(copying, done ? "Copied" : "Not copied");
    });
    const saving = make("button", { type: "button", title: "Every number in full" }, "CSV");
    saving.addEventListener("click", () => {
      save(`${box.dataset.name}.csv`, exact(table).map((row) => row.map(quoted).join(",")).join("\n") + "\n");
      say(saving, "Saved");
    });
    for (const one of [copying, saving]) one.append(make("span", { className: "hidden" }, ` ${label}`));
    box.prepend(make("div", { className: "tools" }, make("span", { className: "more" }, "Scroll sideways for more →"), copying, saving));
  };

  // A box takes focus, and says that there is more, only where it scrolls.
  const measure = (box) => {
    const wide = box.querySelector(".wide");
    const across = wide.scrollWidth > wide.clientWidth + 1;
    const scrolls = across || wide.scrollHeight > wide.clientHeight + 1;
    box.toggleAttribute("data-wide", across);
    box.toggleAttribute("data-more", across && wide.scrollLeft + wide.clientWidth < wide.scrollWidth - 2);
    if (scrolls) wide.tabIndex = 0;
    else wide.removeAttribute("tabindex");
  };
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => measure(entry.target.closest(".table"))));

  for (const box of document.querySelectorAll(".table")) {
    const table = box.querySelector("table"), wide = box.querySelector(".wide");
    [...table.tBodies[0].rows].forEach((row, i) => { row.dataset.row = i; });
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const pressed = make("button", { type: "button" }, ...head.childNodes);
      pressed.addEventListener("click", () => sort(table, column, head));
      head.append(pressed);
    });
    tools(box, table, wide.getAttribute("aria-label"));
    wide.addEventListener("scroll", () => measure(box), { passive: true });
    sizes.observe(wide);
  }
  for (const box of document.querySelectorAll(".drawing")) {
    const figure = box.closest("figure");
    figure.querySelector("figcaption").prepend(make("p", { className: "more" }, "Scroll sideways for more →"));
    const size = () => {
      const across = box.scrollWidth > box.clientWidth + 1;
      figure.toggleAttribute("data-wide", across);
      if (across) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    };
    new ResizeObserver(size).observe(box);
  }

  // On paper the paper's own figures stand open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.beside:not([open])")];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
})();
