// How the site's search ranks the pages that it finds. Sphinx counts only the best word of a query, so most pages tie; here
// each word counts, more in a heading, and most in the page's title.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  score: ([name, title, , , score, , kind]) => {
    if (kind === SearchResultKind.title) {
      // A heading that has the whole query.
      return score + 100;
    }
    if (kind !== SearchResultKind.text) {
      return score;
    }
    const { docnames, terms, titleterms } = Search._index;
    const isIn = (pages) => [pages].flat().includes(docnames.indexOf(name));
    const stemmer = new Stemmer();
    const stems = (text) =>
      splitQuery(text.toLowerCase())
        .filter((word) => !stopwords.has(word))
        .map((word) => stemmer.stemWord(word));
    const titleStems = stems(title);
    const scoreOf = (stem) =>
      (isIn(titleterms[stem]) ? Scorer.title : isIn(terms[stem]) ? Scorer.term : Scorer.partialTerm) +
      (titleStems.includes(stem) ? Scorer.title : 0);
    const query = new URLSearchParams(window.location.search).get("q") ?? "";
    const sum = stems(query).reduce((total, stem) => total + scoreOf(stem), 0);
    // What explains the past or the code answers fewer questions than a guide does.
    return /^(api|architecture|changelog|decisions)/.test(name) ? sum / 2 : sum;
  },
};
