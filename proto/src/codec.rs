//! How messages become bytes on a stream: as prost has it, with buffers that begin small. Each open stream keeps two for as long as it lasts,
//! and most streams between the planes are silent most of the time; a larger message makes its buffer larger while it is on its way.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::BufferSettings;
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a buffer begins with, in bytes: more than nearly every message, an eighth of what it would be otherwise.
const BEGINS_WITH: usize = 1024;
/// What is gathered before it is handed to the connection, in bytes; as everywhere.
const HANDED_ON: usize = 32 * 1024;

/// Encodes `T` and decodes `U`.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::new(BufferSettings::new(BEGINS_WITH, HANDED_ON))
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstDecoder::new(BufferSettings::new(BEGINS_WITH, HANDED_ON))
    }
}
