(function () {
  document.querySelectorAll(".tabdiff-report table.sortable").forEach(function (table) {
    if (table.dataset.ready) { return; }
    table.dataset.ready = "yes";
    table.querySelectorAll("th button").forEach(function (button, place) {
      button.addEventListener("click", function () {
        var head = button.parentElement;
        var down = head.getAttribute("aria-sort") !== "descending";
        table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        var body = table.tBodies[0];
        Array.from(body.rows).sort(function (one, two) {
          var a = one.cells[place].dataset.value, b = two.cells[place].dataset.value;
          var x = parseFloat(a), y = parseFloat(b), order;
          if (a === "" || b === "") { return (a === "") - (b === ""); }
          if (isNaN(x) || isNaN(y)) { order = a.localeCompare(b); } else { order = x - y; }
          return down ? -order : order;
        }).forEach(function (row) { body.appendChild(row); });
      });
    });
  });
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll(".tabdiff-report details").forEach(function (part) { part.open = true; });
  });
})();
