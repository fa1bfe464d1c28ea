// What every page has: light and dark, hints, copying of commands, the menu of the docs.
(function () {
  "use strict";
  const root = document.documentElement;
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;

  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("bnnbench-theme", root.dataset.theme); } catch { /* for this page */ }
  });

  const tip = document.getElementById("tip");
  const why = JSON.parse(document.getElementById("why").textContent);
  const hinted = "[data-tip], .mark";

  function wordsOf(element) {
    const kind = element.classList.contains("mark") ? element.classList[1] : "";
    return [element.dataset.tip, why[kind]].filter(Boolean).join(": ");
  }

  function show(element) {
    const words = wordsOf(element);
    if (!words) return;
    tip.textContent = words;
    tip.hidden = false;
    element.setAttribute("aria-describedby", "tip");
    const at = element.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const below = at.bottom + size.height + 12 < innerHeight;
    const left = Math.min(Math.max(8, at.left + at.width / 2 - size.width / 2), innerWidth - size.width - 8);
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? at.bottom + 8 : at.top - size.height - 8}px`;
  }

  function hide() {
    tip.hidden = true;
    document.querySelectorAll("[aria-describedby=tip]").forEach((e) => e.removeAttribute("aria-describedby"));
  }

  for (const kind of ["pointerover", "focusin"]) {
    document.addEventListener(kind, (event) => {
      const element = event.target.closest && event.target.closest(hinted);
      if (element) show(element); else hide();
    });
  }
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("code").textContent;
    let done = true;
    try { await navigator.clipboard.writeText(text); } catch { done = false; }
    if (!done) {  // without leave to write: selected, to be copied by hand
      getSelection().selectAllChildren(button.parentElement.querySelector("code"));
    }
    button.textContent = done ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }));

  const menu = document.querySelector(".menu");
  if (menu && matchMedia("(max-width: 900px)").matches) menu.open = false;
})();
