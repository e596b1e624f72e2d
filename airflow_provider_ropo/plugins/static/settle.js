// A form that settles failed events in the ledger. It triggers a DAG with the tag "ropo-settle", as the viewer, because
// the address of Airflow's own trigger form cannot carry values (up to Airflow 3.3).

import { dagUrl, fetchSettleDag, HttpError, navigateParent, triggerDag } from "./airflow.js";
import { make } from "./elements.js";
import { formatNumber, STATUSES } from "./words.js";

/** What a person can settle an event as, and what that means. */
const CHOICES = {
  delivered: "delivered: Ropo One has it",
  closed: "closed: it is not to be sent",
  undelivered: "undelivered: Ropo One does not have it, the next run sends it",
};

/** The form; `update(report)` offers it where there is a ledger, a failed event with an id, and a DAG that settles. */
export function settleSection() {
  const element = make("section", { class: "settle", hidden: "" });
  let shown = "";

  async function update(report) {
    const groups = report?.ledger && !report.preview ? groupsOf(report.failures) : [];
    const key = JSON.stringify([groups, report?.ledger, report?.destination]);
    if (key === shown) {
      return;
    }
    shown = key;
    element.hidden = true;
    if (groups.length === 0) {
      return;
    }
    const dag = await fetchSettleDag().catch(() => null);
    if (dag !== null && key === shown) {
      element.replaceChildren(details(report, groups, dag));
      element.hidden = false;
    }
  }

  return { element, update };
}

/** The ids of the failed events, by status. */
function groupsOf(failures) {
  return STATUSES.map(({ key, label }) => {
    const ids = failures.filter(({ id, status }) => id && status === key).map(({ id }) => id);
    return { key, label, ids: [...new Set(ids)] };
  }).filter(({ ids }) => ids.length);
}

function details(report, groups, dag) {
  const { table, conn_id: connection } = report.ledger;
  const events = select("Events", groups.map(({ key, label, ids }) => [key, `${label} (${formatNumber(ids.length)})`]));
  const ids = make("textarea", { rows: "4", spellcheck: "false" });
  const settleAs = select("Settle as", [["", "choose…"], ...choicesOf(dag)]);
  const reason = make("input", { type: "text", required: "", maxlength: "300", autocomplete: "off" });
  const button = make("button", { type: "submit" }, `Run ${dag.dag_display_name}`);
  const answer = make("p", { role: "status" });
  const fill = () => {
    const chosen = groups.find(({ key }) => key === events.field.value) ?? groups[0];
    ids.value = chosen.ids.join("\n");
    ids.rows = Math.min(Math.max(chosen.ids.length, 2), 8);
  };
  settleAs.field.required = true;
  events.field.addEventListener("change", fill);
  fill();

  const form = make(
    "form",
    {},
    events.label,
    settleAs.label,
    make("label", { class: "wide" }, "Event ids, one on each line", ids),
    make("label", { class: "wide" }, "Reason, for the ledger", reason),
    make("div", { class: "wide" }, button),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    const values = {
      event_ids: ids.value.split("\n").map((id) => id.trim()).filter(Boolean),
      settle_as: settleAs.field.value,
      reason: reason.value.trim(),
      conn_id: connection,
      table,
      destination: report.destination,
    };
    answer.replaceChildren(await run(dag, values));
    button.disabled = false;
  });

  const link = navigateParent(make("a", { href: dagUrl(dag.dag_id), target: "_top" }, dag.dag_display_name));
  return make(
    "details",
    {},
    make("summary", {}, "Settle these events by hand"),
    make(
      "p",
      {},
      "Use this when you know whether Ropo One has them. It triggers the DAG ",
      link,
      `, which writes your decision to the ledger ${table} (connection ${connection}).`,
    ),
    form,
    answer,
  );
}

function select(name, options) {
  const field = make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
  return { field, label: make("label", {}, name, field) };
}

/** The choices that the DAG's param allows; all of them if it does not say. */
function choicesOf({ params }) {
  const allowed = params?.settle_as?.schema?.enum ?? Object.keys(CHOICES);
  return allowed.filter((choice) => choice in CHOICES).map((choice) => [choice, CHOICES[choice]]);
}

/** Trigger the DAG; what to show. */
async function run(dag, { event_ids: ids, ...others }) {
  if (ids.length === 0) {
    return "There is no event id.";
  }
  const type = [dag.params?.event_ids?.schema?.type ?? "array"].flat();
  const conf = { event_ids: type.includes("array") ? ids : ids.join("\n"), ...others };
  try {
    const { dag_run_id: runId } = await triggerDag(dag.dag_id, conf);
    const url = dagUrl(dag.dag_id, runId);
    const link = navigateParent(make("a", { href: url, target: "_top" }, runId));
    const paused = dag.is_paused ? " The DAG is paused: the run starts when it is unpaused." : "";
    return make("span", {}, "Started: ", link, paused);
  } catch (error) {
    return error instanceof HttpError && error.status === 403
      ? `You may not trigger the DAG ${dag.dag_display_name}.`
      : `The run was not started: ${error.message}.`;
  }
}
