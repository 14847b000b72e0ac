//! What ends reading.

use crate::proxy::guard::Refusal;

/// Why reading from a connection was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The head did not come in time.
    SlowHead,
    /// The head is too large.
    LargeHead(Refusal),
    /// The body comes too slowly.
    SlowBody,
    /// The chunks of the body are not framed as they should be.
    Chunks,
    /// HTTP/2 trailers have pseudo fields.
    Trailers,
    /// Too much comes behind a message that is not answered yet.
    Ahead,
    /// An HTTP/2 client takes most of its requests back.
    Resets,
    /// An HTTP/2 client sends what is for nobody, or does not go when it is told to.
    Flood,
}
