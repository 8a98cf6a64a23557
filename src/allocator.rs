//! jemalloc, told to give memory back: after a mass disconnect glibc keeps all of it, and jemalloc's own defaults keep
//! most (measured: 20,000 TLS connections dropped leave 155 MB, 128 MB, and 3 MB with these options). It is the allocator
//! of C as well, under its plain name: aws-lc holds over a kilobyte for each connection, which glibc would keep.
//! The only module of the program with `unsafe`: the options are read by C before `main`, from a symbol with this name.
#![expect(
    unsafe_code,
    reason = "jemalloc finds its options by the name of a symbol"
)]

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A pointer to C text: `Option<&T>` has the form of a nullable `const char *`.
#[unsafe(export_name = "malloc_conf")]
static OPTIONS: Option<&u8> =
    Some(&b"background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0\0"[0]);
