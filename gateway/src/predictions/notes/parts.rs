//! The tensors of a row, and how large a row can be.

use engine::{Tensor, TensorSpec};
use predlog::{RowRef, State, TensorRef};

use crate::predictions::schema::Plan;

/// Bytes of a row beside its texts and tensors, at most.
const PLAIN_BYTES: usize = 512;
/// Tensors of one side that a row has room for without an allocation.
const FEW: usize = 8;

/// Tensors of one side of a row.
pub(super) struct List<'a> {
    few: [TensorRef<'a>; FEW],
    count: usize,
    /// All of them, where they are not few.
    many: Vec<TensorRef<'a>>,
}

impl<'a> List<'a> {
    pub(super) fn new(
        given: &[(usize, &'a Tensor)],
        spec: impl Fn(usize) -> &'a TensorSpec,
        (plans, changed): (&[Plan], &'a [Option<Vec<u8>>]),
        limit: usize,
    ) -> Self {
        const EMPTY: TensorRef<'static> =
            TensorRef { name: "", datatype: "", shape: &[], data: &[], state: State::Whole };
        let mut list = Self { few: [EMPTY; FEW], count: given.len(), many: Vec::new() };
        let of = |(position, (index, tensor)): (usize, &(usize, &'a Tensor))| {
            let (data, state) = match (&plans[*index], changed.get(position)) {
                (Plan::Keep, _) => (&tensor.data()[..], State::Whole),
                (_, Some(Some(left))) => (&left[..], State::Redacted),
                (_, Some(None) | None) => (&[][..], State::Redacted),
            };
            let (data, state) = match (data.len() > limit, state) {
                (true, State::Whole) => (&[][..], State::LeftOut),
                (true, state) => (&[][..], state),
                (false, state) => (data, state),
            };
            let (name, datatype) = (spec(*index).name.as_str(), tensor.datatype().name());
            TensorRef { name, datatype, shape: tensor.shape(), data, state }
        };
        let all = given.iter().enumerate().map(of);
        match given.len() > FEW {
            true => list.many = all.collect(),
            false => list.few.iter_mut().zip(all).for_each(|(place, tensor)| *place = tensor),
        }
        list
    }

    /// The same, and others behind them.
    pub(super) fn with(mut self, others: &[TensorRef<'a>]) -> Self {
        if !others.is_empty() {
            self.many = [self.all(), others].concat();
        }
        self
    }

    pub(super) fn all(&self) -> &[TensorRef<'a>] {
        if self.many.is_empty() { &self.few[..self.count] } else { &self.many }
    }
}

/// Bytes of a row with its head, or a few more.
pub(super) fn most_bytes(row: &RowRef<'_>) -> usize {
    /// A tag and a length of what has a length, twice.
    const HEAD: usize = 20;
    /// A number of the wire, at most.
    const NUMBER: usize = 10;
    let texts = [
        row.caller_id,
        row.idempotency_key,
        row.protocol,
        row.called,
        row.model,
        row.version,
        row.file_hash,
        row.route,
        row.assigned_arm,
        row.arm,
        row.fallback,
        row.draw,
        row.sticky_key,
        row.error,
        row.device,
        row.identity,
        row.stratum,
        row.shadow,
    ];
    let texts: usize = texts.iter().map(|text| text.len()).sum();
    let slices: usize =
        row.slices.iter().map(|(name, value)| name.len() + value.len() + 2 * HEAD).sum();
    let tensor = |tensor: &TensorRef<'_>| {
        let texts = tensor.name.len() + tensor.datatype.len();
        texts + tensor.shape.len() * NUMBER + tensor.data.len() + 5 * HEAD
    };
    let tensors: usize = row.inputs.iter().chain(row.outputs).map(tensor).sum();
    PLAIN_BYTES + texts + slices + tensors
}
