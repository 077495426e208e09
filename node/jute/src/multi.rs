//! The bodies of `multi` and `multiRead`: operations, and results, each after a header, until an end marker.

use std::borrow::Borrow;

use bytes::BufMut;

use crate::{
    Create, CreateTtl, DecodeError, ErrorCode, OpCode, PathVersion, PathWatch, Reader, SetData, Stat,
    put_bool, put_buffer, put_string, put_strings,
};

/// One operation of a multi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiOp<'a> {
    /// Creates a node, answers its path.
    Create(Create<'a>),
    /// Creates a node, answers path and Stat.
    Create2(Create<'a>),
    /// Creates a container node.
    CreateContainer(Create<'a>),
    /// Creates a node with a time to live.
    CreateTtl(CreateTtl<'a>),
    /// Deletes a node.
    Delete(PathVersion<'a>),
    /// Writes a node's data.
    SetData(SetData<'a>),
    /// Checks a node's version.
    Check(PathVersion<'a>),
    /// Lists a node's children (`multiRead`).
    GetChildren(PathWatch<'a>),
    /// Reads a node's data (`multiRead`).
    GetData(PathWatch<'a>),
}

impl MultiOp<'_> {
    /// The operation's type.
    pub const fn op(&self) -> OpCode {
        match self {
            Self::Create(_) => OpCode::Create,
            Self::Create2(_) => OpCode::Create2,
            Self::CreateContainer(_) => OpCode::CreateContainer,
            Self::CreateTtl(_) => OpCode::CreateTtl,
            Self::Delete(_) => OpCode::Delete,
            Self::SetData(_) => OpCode::SetData,
            Self::Check(_) => OpCode::Check,
            Self::GetChildren(_) => OpCode::GetChildren,
            Self::GetData(_) => OpCode::GetData,
        }
    }

    /// Whether it belongs into a `multiRead`.
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::GetChildren(_) | Self::GetData(_))
    }
}

/// Reads the operations. All must be reads or all writes, whichever the request's type.
pub fn decode_multi<'a>(r: &mut Reader<'a>) -> Result<Vec<MultiOp<'a>>, DecodeError> {
    let (mut ops, mut reads) = (Vec::new(), None);
    while let Some(op) = decode_multi_op(r, &mut reads)? {
        ops.push(op);
    }
    Ok(ops)
}

/// Reads the next operation; none at the end marker. Whether they are reads is kept between the calls, none at first.
pub fn decode_multi_op<'a>(
    r: &mut Reader<'a>,
    reads: &mut Option<bool>,
) -> Result<Option<MultiOp<'a>>, DecodeError> {
    let header = MultiHeader::decode(r)?;
    if header.done {
        return Ok(None);
    }
    let op = decode_op(header.op, r)?;
    if *reads.get_or_insert(op.is_read()) != op.is_read() {
        return Err(DecodeError::MixedMulti);
    }
    Ok(Some(op))
}

fn decode_op<'a>(op: i32, r: &mut Reader<'a>) -> Result<MultiOp<'a>, DecodeError> {
    Ok(match OpCode::from_i32(op) {
        Some(OpCode::Create) => MultiOp::Create(Create::decode(r)?),
        Some(OpCode::Create2) => MultiOp::Create2(Create::decode(r)?),
        Some(OpCode::CreateContainer) => MultiOp::CreateContainer(Create::decode(r)?),
        Some(OpCode::CreateTtl) => MultiOp::CreateTtl(CreateTtl::decode(r)?),
        Some(OpCode::Delete) => MultiOp::Delete(PathVersion::decode(r)?),
        Some(OpCode::SetData) => MultiOp::SetData(SetData::decode(r)?),
        Some(OpCode::Check) => MultiOp::Check(PathVersion::decode(r)?),
        Some(OpCode::GetChildren) => MultiOp::GetChildren(PathWatch::decode(r)?),
        Some(OpCode::GetData) => MultiOp::GetData(PathWatch::decode(r)?),
        _ => return Err(DecodeError::MultiOp(op)),
    })
}

/// Appends the operations and the end marker.
pub fn encode_multi(ops: &[MultiOp<'_>], out: &mut impl BufMut) {
    for op in ops {
        MultiHeader { op: op.op().as_i32(), done: false, err: -1 }.encode(out);
        match op {
            MultiOp::Create(c) | MultiOp::Create2(c) | MultiOp::CreateContainer(c) => c.encode(out),
            MultiOp::CreateTtl(c) => c.encode(out),
            MultiOp::Delete(p) | MultiOp::Check(p) => p.encode(out),
            MultiOp::SetData(s) => s.encode(out),
            MultiOp::GetChildren(p) | MultiOp::GetData(p) => p.encode(out),
        }
    }
    MultiHeader::END.encode(out);
}

/// One result of a multi.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiResult<'a> {
    /// Of `create`.
    Create {
        /// The created node's path.
        path: &'a str,
    },
    /// Of `create2`, and also of `createContainer` and `createTTL`, which ZooKeeper answers as type 15.
    Create2 {
        /// The created node's path.
        path: &'a str,
        /// Its Stat.
        stat: Stat,
    },
    /// Of `delete`.
    Delete,
    /// Of `setData`.
    SetData(Stat),
    /// Of `check`.
    Check,
    /// Of `getChildren`.
    Children(Vec<&'a str>),
    /// Of `getData`.
    Data {
        /// The data.
        data: Option<&'a [u8]>,
        /// The node's Stat.
        stat: Stat,
    },
    /// A failure. When a `multi` fails every result is one: [`ErrorCode::OK`] before the operation at fault, its code,
    /// then [`ErrorCode::RUNTIME_INCONSISTENCY`].
    Error(ErrorCode),
}

impl<'a> MultiResult<'a> {
    const fn op(&self) -> OpCode {
        match self {
            Self::Create { .. } => OpCode::Create,
            Self::Create2 { .. } => OpCode::Create2,
            Self::Delete => OpCode::Delete,
            Self::SetData(_) => OpCode::SetData,
            Self::Check => OpCode::Check,
            Self::Children(_) => OpCode::GetChildren,
            Self::Data { .. } => OpCode::GetData,
            Self::Error(_) => OpCode::Error,
        }
    }

    /// Appends the results and the end marker: the body of the response.
    pub fn encode_list<'r>(results: impl IntoIterator<Item: Borrow<MultiResult<'r>>>, out: &mut impl BufMut) {
        results.into_iter().for_each(|result| result.borrow().encode(out));
        MultiHeader::END.encode(out);
    }

    /// How many bytes the result takes in a response.
    pub fn encoded_len(&self) -> usize {
        let text = |text: &str| 4 + text.len();
        MultiHeader::LEN
            + match self {
                Self::Create { path } => text(path),
                Self::Create2 { path, .. } => text(path) + Stat::LEN,
                Self::Delete | Self::Check => 0,
                Self::SetData(_) => Stat::LEN,
                Self::Children(names) => 4 + names.iter().map(|name| text(name)).sum::<usize>(),
                Self::Data { data, .. } => 4 + data.map_or(0, <[u8]>::len) + Stat::LEN,
                Self::Error(_) => 4,
            }
    }

    fn encode(&self, out: &mut impl BufMut) {
        let err = if let Self::Error(code) = self { code.0 } else { 0 };
        MultiHeader { op: self.op().as_i32(), done: false, err }.encode(out);
        match self {
            Self::Create { path } => put_string(out, Some(path)),
            Self::Create2 { path, stat } => {
                put_string(out, Some(path));
                stat.encode(out);
            }
            Self::Delete | Self::Check => {}
            Self::SetData(stat) => stat.encode(out),
            Self::Children(names) => put_strings(out, names.iter().copied()),
            Self::Data { data, stat } => {
                put_buffer(out, *data);
                stat.encode(out);
            }
            Self::Error(code) => out.put_i32(code.0),
        }
    }

    pub(crate) fn decode_list(r: &mut Reader<'a>) -> Result<Vec<Self>, DecodeError> {
        let mut results = Vec::new();
        loop {
            let header = MultiHeader::decode(r)?;
            if header.done {
                return Ok(results);
            }
            results.push(Self::decode(header.op, r)?);
        }
    }

    fn decode(op: i32, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match OpCode::from_i32(op) {
            Some(OpCode::Create) => Self::Create { path: r.string("path")?.unwrap_or_default() },
            Some(OpCode::Create2) => {
                Self::Create2 { path: r.string("path")?.unwrap_or_default(), stat: Stat::decode(r)? }
            }
            Some(OpCode::Delete) => Self::Delete,
            Some(OpCode::SetData) => Self::SetData(Stat::decode(r)?),
            Some(OpCode::Check) => Self::Check,
            Some(OpCode::GetChildren) => Self::Children(r.strings("children")?),
            Some(OpCode::GetData) => Self::Data { data: r.buffer("data")?, stat: Stat::decode(r)? },
            Some(OpCode::Error) => Self::Error(ErrorCode(r.i32("err")?)),
            _ => return Err(DecodeError::MultiOp(op)),
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct MultiHeader {
    op: i32,
    done: bool,
    err: i32,
}

impl MultiHeader {
    const LEN: usize = 9;
    const END: Self = Self { op: -1, done: true, err: -1 };

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { op: r.i32("multi.type")?, done: r.bool("multi.done")?, err: r.i32("multi.err")? })
    }

    fn encode(self, out: &mut impl BufMut) {
        out.put_i32(self.op);
        put_bool(out, self.done);
        out.put_i32(self.err);
    }
}
