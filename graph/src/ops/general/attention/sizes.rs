//! How queries, keys, values and caches of `Attention` fit together.

use tract_onnx::tract_hir::internal::*;

use super::Attention;

/// The extents of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) query_heads: usize,
    pub(super) key_heads: usize,
    pub(super) queries: usize,
    /// Keys of this call, before those of the cache are put in front.
    pub(super) keys: usize,
    pub(super) past: usize,
    pub(super) head: usize,
    pub(super) value_head: usize,
}

impl Sizes {
    pub(super) fn all_keys(&self) -> usize {
        self.past + self.keys
    }
}

impl Attention {
    /// The extents of a call, from the shapes of its queries, keys, values and caches.
    pub(super) fn sizes(
        &self,
        query: &[usize],
        key: &[usize],
        value: &[usize],
        past: Option<(&[usize], &[usize])>,
    ) -> TractResult<Sizes> {
        let sizes = match (query, key, value, self.heads) {
            (
                &[batch, queries, hidden],
                &[key_batch, keys, key_hidden],
                &[value_batch, values, value_hidden],
                Some((query_heads, key_heads)),
            ) => {
                ensure!(
                    hidden % query_heads == 0
                        && key_hidden % key_heads == 0
                        && value_hidden % key_heads == 0,
                    "the hidden sizes are no multiples of the numbers of heads"
                );
                let head = hidden / query_heads;
                ensure!(
                    key_hidden / key_heads == head,
                    "heads of queries and keys differ"
                );
                ensure!(
                    batch == key_batch && batch == value_batch && keys == values,
                    "queries, keys and values do not fit together"
                );
                Sizes {
                    batch,
                    query_heads,
                    key_heads,
                    queries,
                    keys,
                    past: 0,
                    head,
                    value_head: value_hidden / key_heads,
                }
            }
            (_, _, _, None) if query.len() == 3 => {
                bail!("inputs of three axes need q_num_heads and kv_num_heads")
            }
            (
                &[batch, query_heads, queries, head],
                &[key_batch, key_heads, keys, key_head],
                &[value_batch, value_heads, values, value_head],
                _,
            ) => {
                ensure!(
                    batch == key_batch
                        && batch == value_batch
                        && keys == values
                        && head == key_head
                        && key_heads == value_heads,
                    "queries, keys and values do not fit together"
                );
                Sizes {
                    batch,
                    query_heads,
                    key_heads,
                    queries,
                    keys,
                    past: 0,
                    head,
                    value_head,
                }
            }
            _ => bail!("queries, keys and values must all have three axes or four"),
        };
        ensure!(
            sizes.key_heads > 0 && sizes.query_heads % sizes.key_heads == 0,
            "{} query heads are no multiple of {} key heads",
            sizes.query_heads,
            sizes.key_heads
        );
        let Some((past_key, past_value)) = past else {
            return Ok(sizes);
        };
        let &[_, _, length, _] = past_key else {
            bail!("past_key must have four axes");
        };
        let want = |width| [sizes.batch, sizes.key_heads, length, width];
        ensure!(
            *past_key == want(sizes.head) && *past_value == want(sizes.value_head),
            "the caches do not fit the keys and values"
        );
        Ok(Sizes {
            past: length,
            ..sizes
        })
    }
}
