(() => {
  const find = id => document.getElementById(id), bar = find("bar"), list = find("list");
  const held = id => JSON.parse(find(id).textContent);

  const filterPairs = () => {
    const count = find("count"), bands = [...document.querySelectorAll(".band-of")].map(section => {
      const grid = section.querySelector(".pairs");
      const pairs = [...grid.children].map(item => ({
        item, type: item.dataset.type, isNew: "new" in item.dataset, text: item.querySelector("h4").textContent.toLowerCase(),
        ...Object.fromEntries(["l2", "margin", "copies", "similarity", "rate"].map(name => [name, +item.dataset[name]])),
      }));
      return { section, grid, number: section.querySelector(".band-title span"), pairs };
    });
    const ascending = ["l2", "margin"];
    let sorted = "l2";
    const update = () => {
      const { type, sort, copies, similarity, text, blur } = bar.elements, wanted = text.value.trim().toLowerCase();
      const isWanted = p => (!type.value || (type.value === "new" ? p.isNew : p.type === type.value)) && p.copies >= copies.value
        && (!similarity.value || p.similarity >= similarity.value) && p.text.includes(wanted);
      let shown = 0, all = 0;
      for (const { section, grid, number, pairs } of bands) {
        if (sort.value !== sorted) {
          const sign = ascending.includes(sort.value) ? 1 : -1;
          pairs.sort((a, b) => sign * (a[sort.value] - b[sort.value]) || a.l2 - b.l2);
          grid.remove(); // five hundred moves outside of the page are half as dear as inside
          grid.append(...pairs.map(p => p.item));
          section.append(grid);
        }
        let n = 0;
        for (const p of pairs) n += !(p.item.hidden = !isWanted(p));
        section.hidden = !n;
        number.textContent = n;
        shown += n;
        all += pairs.length;
      }
      sorted = sort.value;
      document.body.classList.toggle("blurred", blur.checked);
      count.textContent = `${shown} of ${all} shown`;
    };
    bar.addEventListener("input", update);
    update();
  };

  const listRows = () => {
    const { arms, types, rows } = held("rows"), body = find("rows-body"), status = find("rows-count"), more = find("rows-more");
    const texts = rows.map(r => `${r[1]} ${r[9]}`.toLowerCase()), STEP = 50;
    const fixed = (value, digits) => value === null ? "–" : (value / 1000).toFixed(digits);
    const words = text => text.replaceAll("_", " ");
    let found = [], shown = 0, column = null, sign = 1;
    const cell = (tr, text, name) => {
      const td = tr.insertCell();
      if (name) td.className = name;
      td.textContent = text;
      return td;
    };
    const line = r => {
      const [id, caption, arm, type, l2, margin, similarity, copies, rate, key, flags] = r, tr = document.createElement("tr");
      const first = cell(tr, "", "caption"), text = document.createElement(flags & 4 ? "a" : "bdi");
      if (flags & 4) text.href = `#p${id}`;
      text.textContent = caption;
      first.append(text);
      cell(tr, words(arms[arm]));
      cell(tr, words(types[type]) + (flags & 2 ? ", flagged" : "") + (flags & 8 ? ", new" : ""), flags & 3 ? "key" : "");
      cell(tr, fixed(l2, 3), "n");
      cell(tr, fixed(margin, 2), "n");
      cell(tr, fixed(similarity, 2), "n");
      cell(tr, copies ?? "–", "n");
      cell(tr, rate === null ? "–" : `${Math.round(rate / 10)} %`, "n");
      cell(tr, key, "caption");
      return tr;
    };
    const extend = () => {
      body.append(...found.slice(shown, shown + STEP).map(i => line(rows[i])));
      shown = Math.min(shown + STEP, found.length);
      more.hidden = shown === found.length;
      status.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} prompts` + (more.hidden ? "" : `, the first ${shown} shown`);
    };
    const update = () => {
      const { verdict, arm, text } = list.elements, wanted = text.value.trim().toLowerCase(), type = types.indexOf(verdict.value), own = arms.indexOf(arm.value);
      found = [];
      rows.forEach((r, i) => {
        const isWanted = !verdict.value || (verdict.value === "extracted" ? r[10] & 1 : verdict.value === "new" ? r[10] & 8 : r[3] === type);
        if (isWanted && (!arm.value || r[2] === own) && texts[i].includes(wanted)) found.push(i);
      });
      if (column !== null) {
        const missing = sign > 0 ? Infinity : -Infinity, of = i => rows[i][column] ?? missing;
        const named = column === 2 ? i => arms[rows[i][2]] : column === 3 ? i => types[rows[i][3]] : of;
        found.sort((a, b) => { const x = named(a), y = named(b); return x < y ? -sign : x > y ? sign : a - b; });
      }
      body.textContent = "";
      shown = 0;
      extend();
    };
    for (const button of document.querySelectorAll("#rows-table th button")) {
      button.addEventListener("click", () => {
        const chosen = +button.dataset.column, isNumber = button.parentElement.classList.contains("n");
        sign = chosen === column ? -sign : isNumber && ![4, 5].includes(chosen) ? -1 : 1;
        column = chosen;
        for (const other of document.querySelectorAll("#rows-table th")) other.removeAttribute("aria-sort");
        button.parentElement.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        update();
      });
    }
    more.addEventListener("click", extend);
    list.addEventListener("input", update);
    update();
  };

  for (const form of [bar, list]) form?.addEventListener("submit", event => event.preventDefault());
  if (bar) filterPairs();
  if (list) listRows();
})();
