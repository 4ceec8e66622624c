// A click on a column's title sorts the images by it, another one turns the order round.
(function () {
  const body = document.getElementById("entries");
  const titles = Array.from(document.querySelectorAll(".sort"), (button) => button.closest("th"));
  function shown(row, column) {
    return row.cells[column].textContent.trim();
  }
  titles.forEach(function (title) {
    title.querySelector(".sort").addEventListener("click", function () {
      const column = title.cellIndex;
      const order = title.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      titles.forEach((each) => each.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", order);
      const rows = Array.from(body.rows);
      rows.sort((one, other) => shown(one, column).localeCompare(shown(other, column), undefined, { numeric: true }));
      if (order === "descending") rows.reverse();
      body.append(...rows);
    });
  });
})();
