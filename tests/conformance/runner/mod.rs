//! Runs conformance vectors through the crate's public interface. See `tests/conformance/README.md` for the format.
//!
//! | file | what it does |
//! |---|---|
//! | `store` | a folder or an archive → the bytes of a file |
//! | `tensor` | one `.npy` file → a tensor of its logical type |
//! | `case` | one `case.json` → attributes, inputs, expected outputs |
//! | `ops/` | a case → what the crate computes for it, one file per family of operations |
//! | `compare` | expected and computed → the first element that differs |
//! | `report` | all verdicts → the table |

mod case;
mod compare;
mod ops;
mod report;
mod store;
mod tensor;

use std::panic::{AssertUnwindSafe, catch_unwind};

use case::{Case, Description};
pub(crate) use report::Report;
pub(crate) use store::Store;

/// The reason that a case has no computed outputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stop {
    /// The crate or this runner does not support the operation, a type or an attribute.
    NotCovered(String),
    /// The case is damaged, or the crate returned an error or a wrong result.
    Failed(String),
}

impl Stop {
    fn not_covered(what: impl Into<String>) -> Self {
        Stop::NotCovered(what.into())
    }
    fn failed(why: impl Into<String>) -> Self {
        Stop::Failed(why.into())
    }
}

impl From<ndarray_quant::Error> for Stop {
    fn from(error: ndarray_quant::Error) -> Self {
        Stop::Failed(format!("the crate returned an error: {error}"))
    }
}

type Outcome<T> = Result<T, Stop>;

/// Runs every case of a store and adds the verdicts to a report.
pub(crate) fn run(store: &Store, report: &mut Report) {
    for path in store.cases() {
        let description = Description::read(store, &path);
        let verdict = match &description.content {
            Err(stop) => Err(stop.clone()),
            Ok(_) => judge(store, &description),
        };
        report.add(&description, verdict);
    }
}

/// Loads a case, computes it and compares.
fn judge(store: &Store, description: &Description) -> Outcome<()> {
    let operation =
        ops::find(&description.op).ok_or_else(|| Stop::not_covered(format!("operation {}", description.op)))?;
    // A panic is a failure of this case, not of the run.
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let case = Case::load(store, description)?;
        compare::all(&case, &operation(&case)?)
    }));
    judged.unwrap_or_else(|panic| Err(Stop::failed(format!("panicked: {}", panic_message(panic.as_ref())))))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without a message",
    }
}
