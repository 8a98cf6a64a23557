//! The payload mask (RFC 6455 5.3): every byte is combined with one byte of a four-byte key, in turn.

/// The key that changes nothing.
pub const NO_MASK: [u8; 4] = [0; 4];

/// Combines `bytes` with `key` in place; byte 0 meets `key[0]`.
pub fn xor(bytes: &mut [u8], key: [u8; 4]) {
    if key == NO_MASK {
        return;
    }
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The key as it stands after `count` bytes of payload.
pub fn rotate(mut key: [u8; 4], count: u64) -> [u8; 4] {
    key.rotate_left(usize::from((count & 3) as u8));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_a_payload_meets_the_same_key_bytes() {
        let plain: Vec<u8> = (0..100).collect();
        let key = [1, 2, 3, 250];
        let mut whole = plain.clone();
        xor(&mut whole, key);
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(*byte, plain[at] ^ key[at % 4]);
        }
        for cut in 0..plain.len() {
            let mut parts = plain.clone();
            let (head, tail) = parts.split_at_mut(cut);
            xor(head, key);
            xor(tail, rotate(key, cut as u64));
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }
}
