//! From the inputs of several calls to one batch, and from its outputs back to theirs.

use engine::{Batch, Run, Tensor};

use super::job::{Failure, Ticket};
use super::queue::Shared;

/// The batch, and the length that calls were padded to, if they were.
pub(super) fn batch_of(
    queue: &Shared,
    inputs: &[Vec<Tensor>],
    tickets: &[Ticket],
) -> (Batch, Option<usize>) {
    let rows = tickets.iter().map(|ticket| ticket.rows).sum();
    if let [only] = inputs {
        return (Batch::single(only, rows), None);
    }
    let calls: Vec<_> = inputs.iter().map(Vec::as_slice).collect();
    match &queue.settings.variable {
        Some(variable) if tickets[0].length > 0 => {
            let lengths: Vec<_> = tickets.iter().map(|ticket| ticket.length).collect();
            let (batch, size) = variable.batch(&calls, &lengths);
            let sent: usize = tickets.iter().map(|ticket| ticket.rows * ticket.length).sum();
            queue.metrics.padded(sent as u64, (rows * size - sent) as u64);
            (batch, Some(size))
        }
        _ => (Batch::stack(&calls), None),
    }
}

/// The run, if its outputs can be cut into the rows of several callers.
pub(super) fn with_all_rows(run: Run, batch: &Batch) -> Result<Run, Failure> {
    match run.outputs.iter().find(|tensor| tensor.rows() != batch.rows()) {
        None => Ok(run),
        Some(tensor) => Err(Failure::Outputs(format!(
            "an output has {} rows for a batch of {}; a model with max_batch_size gives one row \
             per item",
            tensor.rows(),
            batch.rows()
        ))),
    }
}

/// The outputs of each call.
pub(super) fn pieces(
    queue: &Shared,
    outputs: &[Tensor],
    tickets: &[Ticket],
    padded: Option<usize>,
) -> Vec<Vec<Tensor>> {
    if tickets.len() == 1 {
        return vec![outputs.to_vec()];
    }
    let rows: Vec<usize> = tickets.iter().map(|ticket| ticket.rows).collect();
    let mut split: Vec<_> =
        outputs.iter().map(|tensor| tensor.split_rows(&rows).into_iter()).collect();
    let of = |ticket: &Ticket| {
        let outputs = split.iter_mut().filter_map(Iterator::next).collect();
        match (&queue.settings.variable, padded) {
            (Some(variable), Some(padded)) => variable.cut(outputs, padded, ticket.length),
            _ => outputs,
        }
    };
    tickets.iter().map(of).collect()
}
