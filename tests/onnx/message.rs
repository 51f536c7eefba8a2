//! ONNX files written field by field.

/// A protobuf message.
#[derive(Clone, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    pub(crate) fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }
    pub(crate) fn int(self, tag: u64, value: i64) -> Self {
        self.varint(tag << 3).varint(value as u64)
    }
    pub(crate) fn bytes(self, tag: u64, bytes: &[u8]) -> Self {
        let mut message = self.varint(tag << 3 | 2).varint(bytes.len() as u64);
        message.0.extend(bytes);
        message
    }
    pub(crate) fn text(self, tag: u64, text: &str) -> Self {
        self.bytes(tag, text.as_bytes())
    }
    pub(crate) fn message(self, tag: u64, message: Message) -> Self {
        self.bytes(tag, &message.0)
    }
}

pub(crate) fn floats(name: &str, dims: &[i64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensor = dims.iter().fold(Message::default(), |m, &d| m.int(1, d));
    tensor.int(2, 1).text(8, name).bytes(9, &raw)
}

pub(crate) fn ints(name: &str, values: &[i64]) -> Message {
    let tensor = Message::default().int(1, values.len() as i64).int(2, 7).text(8, name);
    values.iter().fold(tensor, |m, &v| m.int(7, v))
}

/// An attribute without a type: an integer, or a list of any other length than 1.
pub(crate) fn attribute(name: &str, values: &[i64]) -> Message {
    match values {
        [one] => Message::default().text(1, name).int(3, *one),
        many => many.iter().fold(Message::default().text(1, name), |m, &v| m.int(8, v)),
    }
}

pub(crate) fn int(name: &str, value: i64) -> Message {
    Message::default().text(1, name).int(3, value).int(20, 2)
}

pub(crate) fn int_list(name: &str, values: &[i64]) -> Message {
    values.iter().fold(Message::default().text(1, name).int(20, 7), |m, &v| m.int(8, v))
}

pub(crate) fn float(name: &str, value: f32) -> Message {
    let mut message = Message::default().text(1, name).int(20, 1).varint(2 << 3 | 5);
    message.0.extend(value.to_le_bytes());
    message
}

pub(crate) fn string(name: &str, value: &str) -> Message {
    Message::default().text(1, name).text(4, value).int(20, 3)
}

pub(crate) fn tensor(name: &str, value: Message) -> Message {
    Message::default().text(1, name).message(5, value).int(20, 4)
}

pub(crate) fn node(op: &str, inputs: &[&str], output: &str, attributes: &[Message]) -> Message {
    let m = inputs.iter().fold(Message::default(), |m, i| m.text(1, i)).text(2, output).text(4, op);
    attributes.iter().fold(m, |m, a| m.message(5, a.clone()))
}

pub(crate) fn value(name: &str, dims: &[i64]) -> Message {
    let dim = |m: Message, &d: &i64| {
        m.message(1, if d > 0 { Message::default().int(1, d) } else { Message::default().text(2, "n") })
    };
    let shape = dims.iter().fold(Message::default(), dim);
    Message::default().text(1, name).message(2, Message::default().message(1, Message::default().message(2, shape)))
}

/// A model in opset 13 with the input `x`.
pub(crate) fn model(nodes: &[Message], tensors: &[Message], input: &[i64], output: &str) -> Vec<u8> {
    model_in(13, nodes, tensors, input, output)
}

/// A model in any opset.
pub(crate) fn model_in(opset: i64, nodes: &[Message], tensors: &[Message], input: &[i64], output: &str) -> Vec<u8> {
    let graph = graph(nodes, tensors, &[value("x", input)], output);
    Message::default().int(1, 8).message(7, graph).message(8, Message::default().int(2, opset)).0
}

pub(crate) fn graph(nodes: &[Message], tensors: &[Message], inputs: &[Message], output: &str) -> Message {
    let graph = nodes.iter().fold(Message::default(), |m, n| m.message(1, n.clone()));
    let graph = tensors.iter().fold(graph, |m, t| m.message(5, t.clone()));
    let graph = inputs.iter().fold(graph, |m, i| m.message(11, i.clone()));
    graph.message(12, value(output, &[]))
}
