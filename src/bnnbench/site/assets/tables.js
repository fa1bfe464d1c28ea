// Tables that sort, filter and hide columns; the address keeps what was chosen.
(function () {
  "use strict";
  const narrow = matchMedia("(max-width: 700px)").matches;
  const chosen = () => new URLSearchParams(location.hash.slice(1));
  const plain = (html) => {
    const holder = document.createElement("template");
    holder.innerHTML = html;
    return holder.content.textContent.trim();
  };

  document.querySelectorAll("table.grid").forEach((element) => {
    const heads = [...element.querySelectorAll("thead th")];
    const groups = heads.filter((head) => head.classList.contains("group")).length;
    const tools = document.querySelector(`.tools[data-for="${element.id}"]`);
    const page = element.closest("[data-first]");
    const facets = heads.map((head, at) => ({ name: head.dataset.facet, title: head.textContent, at }))
      .filter((facet) => facet.name);
    const usual = heads.map((head, at) => at >= groups && !("hide" in head.dataset)
      && (!narrow || "narrow" in head.dataset));

    const options = {
      order: [], autoWidth: false, pageLength: 100, lengthChange: false,
      paging: element.tBodies[0].rows.length > 150,
      layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: "paging" },
      columnDefs: heads.map((head, at) => ({
        targets: at, visible: usual[at], className: head.classList.contains("number") ? "number" : "",
        orderSequence: head.classList.contains("number") ? ["desc", "asc", ""] : ["asc", "desc", ""],
      })),
      language: { zeroRecords: "No row fits these filters: reset them to see all.", emptyTable: "No row." },
    };
    if (groups) {
      options.orderFixed = { pre: [[0, "asc"], [1, "asc"]] };
      options.rowGroup = {
        dataSrc: [(row) => row[0].display, (row) => row[1].display],
        startRender: (rows, name, level) => {
          const words = document.createElement("span");
          words.textContent = plain(name);
          return words.textContent ? words : null;
        },
        emptyDataGroup: null,
      };
    }
    const table = new DataTable(element, options);

    // Filters: a menu for each facet in which rows differ.
    const menus = {};
    for (const facet of facets) {
      const values = [...new Set(table.column(facet.at).data().toArray().map(
        (cell) => plain(typeof cell === "object" ? cell.display : cell)))].sort(
        (a, b) => a.localeCompare(b, undefined, { numeric: true }));
      if (values.length < 2) continue;
      const label = document.createElement("label");
      const select = document.createElement("select");
      label.append(Object.assign(document.createElement("span"), { textContent: facet.title }), select);
      select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
      select.name = facet.name;
      select.addEventListener("change", () => { filter(); save(); });
      tools.querySelector(".filters").append(label);
      menus[facet.name] = { select, at: facet.at };
    }
    const search = tools.querySelector("input[type=search]");
    search.addEventListener("input", () => { filter(); save(); });

    // Columns: a box for each.
    const boxes = heads.map((head, at) => {
      if (at < groups) return null;
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: usual[at] });
      label.append(box, " ", head.textContent);
      tools.querySelector(".columns div").append(label);
      box.addEventListener("change", () => { table.column(at).visible(box.checked); save(); });
      return box;
    });

    function filter() {
      for (const { select, at } of Object.values(menus)) {
        const exact = select.value ? (text) => plain(text) === select.value : "";
        table.column(at).search(exact);
      }
      table.search(search.value).draw();
    }

    // The address: #dataset=cifar10&bits=1/1&q=...&sort=4.desc&columns=1.2.4
    function save() {
      const state = new URLSearchParams();
      for (const [name, { select }] of Object.entries(menus)) if (select.value) state.set(name, select.value);
      if (page && !state.has("dataset")) state.set("dataset", "");
      if (search.value) state.set("q", search.value);
      const order = table.order().filter(([, way]) => way);
      if (order.length) state.set("sort", order.map(([at, way]) => `${at}.${way}`).join(" "));
      const shown = boxes.map((box) => !box || box.checked);
      if (shown.some((value, at) => boxes[at] && value !== usual[at])) {
        state.set("columns", shown.flatMap((value, at) => (boxes[at] && value ? [at] : [])).join("."));
      }
      const hash = state.toString();
      if (hash !== location.hash.slice(1)) history.replaceState(null, "", `#${hash}`);
    }

    function restore() {
      const state = chosen();
      const first = page && !state.has("dataset") ? page.dataset.first : "";
      for (const [name, { select }] of Object.entries(menus)) {
        const value = state.get(name) || (name === "dataset" ? first : "");
        select.value = [...select.options].some((option) => option.value === value) ? value : "";
      }
      search.value = state.get("q") || "";
      const order = (state.get("sort") || "").split(" ").map((part) => part.split("."))
        .filter(([at, way]) => heads[at] && (way === "asc" || way === "desc"))
        .map(([at, way]) => [Number(at), way]);
      table.order(order);
      const columns = state.has("columns") ? new Set(state.get("columns").split(".").map(Number)) : null;
      boxes.forEach((box, at) => {
        if (!box) return;
        box.checked = columns ? columns.has(at) : usual[at];
        if (table.column(at).visible() !== box.checked) table.column(at).visible(box.checked, false);
      });
      filter();
    }

    const toggle = tools.querySelector(".toggle");
    toggle.addEventListener("click", () => {
      toggle.setAttribute("aria-expanded", String(tools.classList.toggle("open")));
    });

    tools.querySelector(".reset").addEventListener("click", () => {
      history.replaceState(null, "", "#");
      restore();
    });
    table.on("order", () => { if (!restoring) save(); });
    table.on("draw", () => {
      // DataTables says the direction of the first key, which is that of the headings here.
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      const [key] = table.order().filter(([, way]) => way);
      if (key) heads[key[0]].setAttribute("aria-sort", key[1] === "asc" ? "ascending" : "descending");
      const used = Object.values(menus).filter(({ select }) => select.value).length;
      toggle.textContent = used ? `Filters (${used})` : "Filters";
      const { recordsDisplay, recordsTotal } = table.page.info();
      tools.querySelector(".count").textContent = `${recordsDisplay} of ${recordsTotal} rows`;
      if (window.drawPareto) window.drawPareto(element.id, rowsShown());
    });

    function rowsShown() {
      return table.rows({ search: "applied" }).nodes().toArray()
        .filter((row) => row.dataset.point)
        .map((row) => {
          const [set, metric, score, ...costs] = row.dataset.point.split("|");
          const data = table.row(row).data().map((cell) => plain(typeof cell === "object" ? cell.display : cell));
          const at = (title) => heads.findIndex((head) => head.textContent === title);
          const [ops, bytes, ms] = costs.map((cost) => (cost ? Number(cost) : null));
          const bits = data[heads.findIndex((head) => head.textContent.endsWith("bits"))] || "";
          const method = data[at("method")] || data[at("quantizer")] || data[groups];
          const link = [...document.createRange().createContextualFragment(
            table.row(row).data().map((cell) => (typeof cell === "object" ? cell.display : cell)).join(" "),
          ).querySelectorAll("a")].find((a) => a.getAttribute("href").includes("runs/"));
          return { set, metric, score: Number(score), ops, bytes, ms, bits, method,
            group: data[0] || "", structure: groups ? data[1] : "", href: link ? link.getAttribute("href") : null };
        });
    }

    let restoring = true;
    tools.hidden = false;
    restore();
    restoring = false;
    window.addEventListener("hashchange", () => { restoring = true; restore(); restoring = false; });
  });
})();
