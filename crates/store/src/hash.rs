//! BLAKE3 of tensors and of whole checkpoints.

use std::collections::BTreeMap;

use blake3::Hasher;
use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use skillweld_tensor::Dtype;

pub use blake3::Hash;
pub use blake3::hazmat::ChainingValue;

/// Hashes one tensor in blocks, by any thread in any order; the result is `blake3::hash` of all its bytes.
///
/// BLAKE3 is a tree over chunks of 1024 bytes. A block whose size is a power of two and whose offset is a multiple of
/// it is a whole subtree, so its chaining value needs no other block.
///
/// ```
/// use skillweld_store::TensorHasher;
/// let bytes = [7; 5000];
/// let hasher = TensorHasher::new(bytes.len() as u64, 2048);
/// let values: Vec<_> = bytes.chunks(2048).enumerate().map(|(i, block)| hasher.hash_block(i, block)).collect();
/// assert_eq!(hasher.finish(&values), blake3::hash(&bytes));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorHasher {
    len_bytes: u64,
    block_bytes: usize,
}

impl TensorHasher {
    /// For a tensor of `len_bytes`, cut into blocks of `block_bytes` of which only the last may be shorter.
    ///
    /// # Panics
    /// Unless `block_bytes` is a power of two and at least 1024.
    pub fn new(len_bytes: u64, block_bytes: usize) -> Self {
        let valid = block_bytes.is_power_of_two() && block_bytes >= blake3::CHUNK_LEN;
        assert!(valid, "blocks of {block_bytes} bytes are not subtrees of BLAKE3");
        Self { len_bytes, block_bytes }
    }

    /// Number of blocks; 0 for an empty tensor.
    pub fn blocks(&self) -> usize {
        self.len_bytes.div_ceil(self.block_bytes as u64) as usize
    }

    /// Chaining value of block `index`. Pure: any thread, any order.
    ///
    /// # Panics
    /// When `bytes` is not as long as that block.
    pub fn hash_block(&self, index: usize, bytes: &[u8]) -> ChainingValue {
        let offset = index as u64 * self.block_bytes as u64;
        let expected = self.len_bytes.saturating_sub(offset).min(self.block_bytes as u64);
        assert_eq!(bytes.len() as u64, expected, "length of block {index}");
        if self.blocks() == 1 {
            // The only block is the root of the tree: its value is the hash.
            return *blake3::hash(bytes).as_bytes();
        }
        Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
    }

    /// Joins the values of all blocks, in order of their index.
    ///
    /// # Panics
    /// Unless there is one value a block.
    pub fn finish(&self, values: &[ChainingValue]) -> Hash {
        assert_eq!(values.len(), self.blocks(), "one chaining value for each block");
        match values {
            [] => blake3::hash(&[]),
            [only] => Hash::from_bytes(*only),
            _ => {
                let (left, right) = children(values);
                merge_subtrees_root(&left, &right, Mode::Hash)
            }
        }
    }
}

/// Chaining values of the two children of the tree over `values` (at least two): the left child takes the largest
/// power of two that leaves something for the right.
fn children(values: &[ChainingValue]) -> (ChainingValue, ChainingValue) {
    let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
    (subtree(left), subtree(right))
}

fn subtree(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [only] => *only,
        _ => {
            let (left, right) = children(values);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

/// The hash of a checkpoint's contents: equal for equal tensors under equal keys, however they are spread over files.
///
/// BLAKE3 in its derive-key mode (context `skillweld checkpoint contents v1`) over the tensors in order of their keys,
/// each as: length of the key in bytes (u64), the key, length of the dtype's name (u64), the name, number of
/// dimensions (u64), the dimensions (u64 each), the tensor's 32-byte BLAKE3 hash. All integers little-endian.
/// Metadata of the files takes no part.
pub fn content_hash<'a>(tensors: impl IntoIterator<Item = (&'a str, Dtype, &'a [usize], Hash)>) -> Hash {
    let sorted: BTreeMap<&str, _> =
        tensors.into_iter().map(|(key, dtype, shape, hash)| (key, (dtype, shape, hash))).collect();
    let mut hasher = Hasher::new_derive_key("skillweld checkpoint contents v1");
    for (key, (dtype, shape, hash)) in sorted {
        for text in [key, dtype.name()] {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        hasher.update(&(shape.len() as u64).to_le_bytes());
        for &dimension in shape {
            hasher.update(&(dimension as u64).to_le_bytes());
        }
        hasher.update(hash.as_bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash_backwards(bytes: &[u8], block_bytes: usize) -> Hash {
        let hasher = TensorHasher::new(bytes.len() as u64, block_bytes);
        let mut values = vec![[0; 32]; hasher.blocks()];
        for (i, block) in bytes.chunks(block_bytes).enumerate().rev() {
            values[i] = hasher.hash_block(i, block);
        }
        hasher.finish(&values)
    }

    #[test]
    fn edges_of_chunks_and_blocks() {
        let bytes: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for block_bytes in [1024, 2048, 8192] {
            for edge in (0usize..=32_768).step_by(1024) {
                for len in [edge, edge + 1, edge.saturating_sub(1)] {
                    assert_eq!(
                        hash_backwards(&bytes[..len], block_bytes),
                        blake3::hash(&bytes[..len]),
                        "{len}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn blocks_in_any_order_equal_one_pass(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), log in 10u32..15) {
            prop_assert_eq!(hash_backwards(&bytes, 1 << log), blake3::hash(&bytes));
        }
    }

    #[test]
    fn contents_do_not_depend_on_order_but_on_everything_else() {
        let (a, b) = (blake3::hash(b"a"), blake3::hash(b"b"));
        let one = ("x", Dtype::F32, &[2usize, 3][..], a);
        let two = ("y", Dtype::F16, &[4usize][..], b);
        let both = content_hash([one, two]);
        assert_eq!(both, content_hash([two, one]));
        let others = [
            content_hash([one]),
            content_hash([one, ("z", two.1, two.2, two.3)]),
            content_hash([one, (two.0, Dtype::BF16, two.2, two.3)]),
            content_hash([one, (two.0, two.1, &[2, 2][..], two.3)]),
            content_hash([one, (two.0, two.1, two.2, a)]),
        ];
        assert!(!others.contains(&both));
    }
}
