(() => {
  const find = id => document.getElementById(id), dialog = find("review");
  if (!dialog) return;
  const { release, protocol, items } = JSON.parse(find("review-data").textContent);
  const place = `eidetic ${protocol} ${release}`, start = find("review-start"), work = find("review-work");
  const order = []; // of the answers: undo takes the last one back
  let reviewer = "", said = {}, marks = {}, at = 0;

  // a page from disk may have no storage: then the file that is saved is all there is
  const keep = () => { try { localStorage.setItem(place, JSON.stringify({ reviewer, said })); } catch { return; } };
  const kept = () => { try { return JSON.parse(localStorage.getItem(place)) ?? {}; } catch { return {}; } };
  const shown = item => {
    const pair = document.getElementById(`p${item.id}`);
    if (!pair) return item;
    const [generated, original] = [...pair.querySelectorAll("img")].map(img => ({ address: img.src, is_small: img.classList.contains("small") }));
    return { caption: pair.querySelector("h4").textContent, generated, original };
  };
  const put = (img, picture) => {
    img.src = picture.address;
    img.classList.toggle("small", picture.is_small);
  };
  const show = () => {
    const item = items[at], { caption, generated, original } = shown(item), given = said[item.id], n = Object.keys(said).length;
    marks = { is_person: false, is_trademark: false, ...given };
    put(find("review-a"), generated);
    put(find("review-b"), original);
    find("review-caption").textContent = caption;
    for (const button of work.querySelectorAll("[data-label]")) button.setAttribute("aria-pressed", given?.label === button.dataset.label);
    for (const button of work.querySelectorAll("[data-mark]")) button.setAttribute("aria-pressed", marks[button.dataset.mark]);
    find("review-count").textContent = n === items.length ? `All ${n} labelled: save reviews.csv` : `${at + 1} of ${items.length}, ${n} labelled`;
    find("review-progress").value = n;
    find("review-back").disabled = at === 0;
    find("review-next").disabled = at === items.length - 1;
    find("review-undo").disabled = n === 0;
  };
  const move = by => {
    at = Math.min(Math.max(at + by, 0), items.length - 1);
    show();
  };
  const answer = label => {
    const { id } = items[at];
    said[id] = { label, is_person: marks.is_person, is_trademark: marks.is_trademark };
    if (order.includes(id)) order.splice(order.indexOf(id), 1);
    order.push(id);
    keep();
    move(1);
  };
  const mark = name => {
    marks[name] = !marks[name];
    const given = said[items[at].id];
    if (given) {
      given[name] = marks[name];
      keep();
    }
    work.querySelector(`[data-mark=${name}]`).setAttribute("aria-pressed", marks[name]);
  };
  const undo = () => {
    const last = order.pop() ?? items.findLast(item => said[item.id])?.id;
    if (!last) return;
    delete said[last];
    keep();
    at = items.findIndex(item => item.id === last);
    show();
  };
  const field = text => `"${String(text).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`; // a spreadsheet shall not take a name for a formula
  const save = () => {
    const lines = items.filter(item => said[item.id]).map(({ id }) => {
      const { label: value, is_person, is_trademark } = said[id];
      return [field(release), id, value, is_person, is_trademark, field(reviewer), protocol].join(",");
    });
    const text = ["release,finding_id,label,is_person,is_trademark,reviewer,protocol_digest", ...lines, ""].join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "reviews.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const labels = ["copy", "substantially_similar", "template", "not_a_copy"];
  const keys = {
    ...Object.fromEntries(labels.map((value, i) => [`${i + 1}`, () => answer(value)])), p: () => mark("is_person"), t: () => mark("is_trademark"),
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), u: undo, Backspace: undo, s: save, b: () => dialog.classList.toggle("blurred"),
  };

  const open = () => {
    const { reviewer: name = "", said: before = {} } = kept();
    start.elements.reviewer.value ||= name;
    if (!Object.keys(said).length) said = before;
    dialog.classList.toggle("blurred", document.body.classList.contains("blurred"));
    dialog.showModal();
  };
  find("review-open").addEventListener("click", open);
  if (location.hash === "#blind") open(); // a reviewer is sent here, past the verdict
  start.addEventListener("submit", event => {
    event.preventDefault();
    reviewer = start.elements.reviewer.value.trim();
    if (!reviewer) return;
    start.hidden = true;
    work.hidden = false;
    at = Math.max(items.findIndex(item => !said[item.id]), 0);
    show();
    work.focus(); // not a button: none shall look like the answer
  });
  dialog.addEventListener("keydown", event => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (work.hidden || !action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
  work.addEventListener("click", event => {
    const { label: value, mark: name } = event.target.closest("button")?.dataset ?? {};
    if (value) answer(value);
    if (name) mark(name);
  });
  for (const [id, action] of [["back", () => move(-1)], ["next", () => move(1)], ["undo", undo], ["save", save], ["close", () => dialog.close()]]) {
    find(`review-${id}`).addEventListener("click", action);
  }
})();
