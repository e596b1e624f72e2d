// Light or dark, as Airflow's UI around this page is; a plain script, so that it is settled before anything is painted.
"use strict";

(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");

  /** The page around this one, if there is one and it is Airflow's. */
  function around() {
    try {
      return window.parent === window ? null : window.parent.document.documentElement;
    } catch {
      return null;
    }
  }

  function chosen() {
    const page = around();
    for (const theme of ["dark", "light"]) {
      if (page?.classList.contains(theme)) {
        return theme;
      }
    }
    const kept = localStorage.getItem("theme");
    return kept === "dark" || kept === "light" ? kept : dark.matches ? "dark" : "light";
  }

  function follow() {
    document.documentElement.dataset.theme = chosen();
  }

  follow();
  dark.addEventListener("change", follow);
  window.addEventListener("storage", follow);
  const page = around();
  if (page) {
    new MutationObserver(follow).observe(page, { attributes: true, attributeFilter: ["class"] });
  }
})();
