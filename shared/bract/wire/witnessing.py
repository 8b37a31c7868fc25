"""The messages of `Witness` and the values that they carry."""

from bract.log.witness import Reply, Shown, Word
from bract.wire import hub_pb2 as pb


def word_message(word: Word) -> pb.WitnessRequest:
    """What a site sends."""
    return pb.WitnessRequest(shown=_shown(word.shown), remembered=word.remembered, cosignature=word.cosignature)


def word_value(message: pb.WitnessRequest) -> Word:
    """What a hub reads; nothing in it is verified yet."""
    return Word(_value(message.shown), message.remembered, message.cosignature)


def reply_message(reply: Reply) -> pb.WitnessReply:
    """What a hub sends."""
    return pb.WitnessReply(remembered=reply.remembered, cosignature=reply.cosignature, shown=_shown(reply.shown))


def reply_value(message: pb.WitnessReply) -> Reply:
    """What a site reads; nothing in it is verified yet."""
    return Reply(message.remembered, message.cosignature, _value(message.shown))


def _shown(shown: Shown) -> pb.Shown:
    return pb.Shown(note=shown.note, old=shown.old, proof=shown.proof)


def _value(message: pb.Shown) -> Shown:
    return Shown(message.note, message.old, tuple(message.proof))
