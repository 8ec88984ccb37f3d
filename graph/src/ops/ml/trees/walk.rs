//! Walks rows through trees, several at once.
//!
//! A step waits for memory, not for arithmetic. So a few walks go side by side, without branches that
//! depend on the data: many rows through one tree, whose nodes then stay in the cache, or one row
//! through many trees. The scores of a row are added in the order of the trees, as ONNX Runtime does.

use super::super::numbers::Real;
use super::ensemble::{Ensemble, Leaves, Node};

/// Walks side by side: enough to hide the latency of a step.
const LANES: usize = 8;

/// Rows that pass one tree before the next: their scores and features stay in the cache.
const BLOCK_ROWS_MAX: usize = 128;

/// Scores kept at once, whatever the number of targets.
const BLOCK_SCORES_MAX: usize = 1 << 20;

/// How the weights of several leaves become one score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
}

/// A score, and whether any leaf gave it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score<X> {
    pub(super) value: X,
    pub(super) is_given: bool,
}

impl<X: Real> Score<X> {
    fn none() -> Self {
        Self {
            value: X::zero(),
            is_given: false,
        }
    }

    /// The value; zero if no leaf gave it, whatever has been added since.
    pub(super) fn given(&self) -> X {
        if self.is_given { self.value } else { X::zero() }
    }

    #[inline]
    fn add(&mut self, weight: X, aggregate: Aggregate) {
        let replaces = match aggregate {
            Aggregate::Sum | Aggregate::Average => {
                self.value = self.value + weight;
                false
            }
            Aggregate::Min => !self.is_given || weight < self.value,
            Aggregate::Max => !self.is_given || weight > self.value,
        };
        if replaces {
            self.value = weight;
        }
        self.is_given = true;
    }
}

impl<T: Real> Ensemble<T> {
    /// Scores rows of `columns` features, at least [`Ensemble::features`], and gives those of each row,
    /// one for each target, to `finish`.
    pub(super) fn score<X: Real + From<T>>(
        &self,
        rows: &[X],
        columns: usize,
        targets: usize,
        aggregate: Aggregate,
        mut finish: impl FnMut(&mut [Score<X>]),
    ) {
        let per_row = match &self.leaves {
            Leaves::Single { .. } => 1,
            Leaves::Many { .. } => targets,
        };
        let block_rows = (BLOCK_SCORES_MAX / per_row).clamp(1, BLOCK_ROWS_MAX);
        let mut row_scores = vec![Score::none(); targets];
        let mut scores = Vec::new();
        for block in rows.chunks(block_rows * columns) {
            scores.clear();
            scores.resize(block.len() / columns * per_row, Score::none());
            match &self.leaves {
                Leaves::Single { target } => {
                    self.visit(block, columns, |row, leaf| {
                        let weight = self.nodes[leaf as usize].value;
                        scores[row].add(weight.into(), aggregate);
                    });
                    for score in &scores {
                        row_scores.fill(Score::none());
                        row_scores[*target] = *score;
                        finish(&mut row_scores);
                    }
                }
                Leaves::Many { ranges, weights } => {
                    self.visit(block, columns, |row, leaf| {
                        let scores = &mut scores[row * targets..][..targets];
                        let [start, end] = ranges[leaf as usize];
                        for weight in &weights[start as usize..end as usize] {
                            scores[weight.target as usize].add(weight.value.into(), aggregate);
                        }
                    });
                    scores.chunks_exact_mut(targets).for_each(&mut finish);
                }
            }
        }
    }

    /// Calls `visit` with each row's number and leaf, for each row in the order of the trees.
    fn visit<X: Real + From<T>>(&self, rows: &[X], columns: usize, visit: impl FnMut(usize, u32)) {
        if self.is_plain {
            self.visit_as::<X, true>(rows, columns, visit);
        } else {
            self.visit_as::<X, false>(rows, columns, visit);
        }
    }

    fn visit_as<X: Real + From<T>, const PLAIN: bool>(
        &self,
        rows: &[X],
        columns: usize,
        mut visit: impl FnMut(usize, u32),
    ) {
        let count = rows.len() / columns;
        if count < LANES {
            for (number, row) in rows.chunks_exact(columns).enumerate() {
                for roots in self.roots.chunks(LANES) {
                    let mut places = [roots[0]; LANES];
                    places[..roots.len()].copy_from_slice(roots);
                    settle::<T, X, PLAIN>(&self.nodes, &mut places, &[row; LANES]);
                    for leaf in &places[..roots.len()] {
                        visit(number, *leaf);
                    }
                }
            }
            return;
        }
        for root in &self.roots {
            for (group, rows) in rows.chunks(LANES * columns).enumerate() {
                let mut lanes = [&rows[..columns]; LANES];
                let mut used = 0;
                for (lane, row) in lanes.iter_mut().zip(rows.chunks_exact(columns)) {
                    *lane = row;
                    used += 1;
                }
                let mut places = [*root; LANES];
                settle::<T, X, PLAIN>(&self.nodes, &mut places, &lanes);
                for (lane, leaf) in places[..used].iter().enumerate() {
                    visit(group * LANES + lane, *leaf);
                }
            }
        }
    }
}

/// Moves each place down to its leaf.
#[inline]
fn settle<T: Real, X: Real + From<T>, const PLAIN: bool>(
    nodes: &[Node<T>],
    places: &mut [u32; LANES],
    rows: &[&[X]; LANES],
) {
    loop {
        let mut moved = 0;
        for (place, row) in places.iter_mut().zip(rows) {
            let node = &nodes[*place as usize];
            let value = row[node.feature()];
            let next = if PLAIN {
                node.next_below(value, node.value.into())
            } else {
                node.next(value, node.value.into())
            };
            moved |= next ^ *place;
            *place = next;
        }
        if moved == 0 {
            return;
        }
    }
}
