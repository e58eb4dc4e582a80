# Generated from the catalogue by: python -m tests.test_catalogue
from collections.abc import Iterable, Iterator, Mapping
from typing import final

from ._catalogue import Format as Format
from ._catalogue import PktLine as _PktLine
from ._catalogue import did_you_mean as did_you_mean
from .codec import Codec

__all__ = ["Catalogue", "Format", "PktLine", "formats"]

PktLine = _PktLine

@final
class Catalogue(Mapping[str, Codec]):
    PktLine = _PktLine
    def __init__(
        self, rows: Iterable[Format], aliases: Mapping[str, str] | None = None
    ) -> None: ...
    def __getitem__(self, name: str) -> Codec: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def describe(self, name: str) -> Format: ...
    def table(self) -> list[Format]: ...
    def aliases(self) -> dict[str, str]: ...
    ascii4: Codec
    """four decimal digits: 0005hello"""
    struct_i: Codec
    """struct.pack('i', n): an int in the size and byte order of this machine"""
    netstring: Codec
    """decimal digits and a colon before, a comma after: 5:hello,"""
    protobuf: Codec
    """protobuf messages after a varint (writeDelimitedTo, protodelim)"""
    erlang1: Codec
    """{packet, 1}"""
    erlang2: Codec
    """{packet, 2}"""
    erlang4: Codec
    """{packet, 4}"""
    iso8583: Codec
    """card payment links with a binary length (in digits: ascii4)"""
    multiprocessing: Codec
    """multiprocessing.connection: an int, or -1 and 8 bytes from 2 GiB up"""
    native_messaging: Codec
    """browser extensions to their hosts; to the browser at most 1 MiB"""
    kafka: Codec
    """requests and responses"""
    thrift: Codec
    """the framed transport"""
    grpc: Codec
    """compressed flag, then the message; inside HTTP/2 data"""
    oncrpc: Codec
    """records of one fragment (NFS, rpcbind); several are refused, see oncrpc-fragment"""
    oncrpc_fragment: Codec
    """fragments of records: 0x80 for the last one or 0, then its bytes"""
    syslog: Codec
    """octet counting, over TCP or TLS"""
    lsp: Codec
    """language servers: Content-Length header, JSON"""
    dap: Codec
    """debug adapters: Content-Length header, JSON"""
    giop: Codec
    """CORBA: version (2), flags, type, body; bit 0 of the flags is the byte order"""
    dbus: Codec
    """order, type, flags, version, serial, length of the fields, fields, body"""
    postgres: Codec
    """type byte, body; after the startup"""
    postgres_startup: Codec
    """a connection's first message: StartupMessage, SSLRequest, CancelRequest"""
    mysql: Codec
    """sequence number, payload; one of 0xFFFFFF bytes continues in the next packet"""
    mongodb: Codec
    """request id, response to, opcode (4 bytes each), body"""
    cassandra: Codec
    """version, flags, stream (2), opcode, body; CQL v3 and v4"""
    cassandra_v5: Codec
    """self-contained flag (0 or 1), CRC24, payload, CRC32; CQL v5, uncompressed"""
    resp_bulk: Codec
    """bulk strings of Redis; $-1 is None"""
    resp: Codec
    """Redis: a whole value as it travelled, nested too; all but the last string within 1 MiB"""
    memcached: Codec
    """the binary protocol: magic 0x80 or 0x81 and 7 more bytes, opaque (4), CAS (8), body"""
    memcached_text: Codec
    """commands and answers: a line, and its data if it announces some; without the last CR LF"""
    tds: Codec
    """SQL Server: type, status, SPID (2), packet id, window, data"""
    amqp: Codec
    """AMQP 0-9-1 (RabbitMQ), after the protocol header: type, channel (2), payload"""
    amqp1: Codec
    """AMQP 1.0, after the protocol header: data offset, type, channel (2), body"""
    mqtt: Codec
    """type and flags, then the packet"""
    zmtp: Codec
    """ZeroMQ, after the greeting: flags (more 1, command 4), body"""
    nats: Codec
    """a line, and its payload if it announces one; without the last CR LF"""
    stomp: Codec
    """a whole frame up to its NUL; a line end between two frames is a heart-beat"""
    smpp: Codec
    """command id, status, sequence number (4 bytes each), body"""
    stun: Codec
    """over TCP: type (2), cookie (4), transaction id (12), attributes"""
    diameter: Codec
    """flags, command code (3), application id and two more ids (4 each), AVPs"""
    radius: Codec
    """over TCP or TLS: code, identifier, authenticator (16), attributes"""
    ldap: Codec
    """LDAP messages: the tag 0x30, then the contents"""
    ber: Codec
    """ASN.1 values: identifier, contents; any definite length (SNMP over TCP, Kerberos)"""
    tls: Codec
    """records: type, version (2), fragment"""
    http2: Codec
    """after the preface: type, flags, stream (4), payload"""
    http_chunk: Codec
    """chunks without extensions; an empty one is the end, without trailer fields"""
    http1: Codec
    """HTTP/1.1: a whole request or response, chunked ones up to 1 MiB; not the answer to HEAD"""
    websocket: Codec
    """FIN and opcode, mask bit (0x80 or 0), masking key (4) if masked, payload"""
    fastcgi: Codec
    """type, request id (2), padding length, reserved, content, padding"""
    uwsgi: Codec
    """modifier1, modifier2, variables"""
    dns: Codec
    """over TCP and TLS"""
    rtp: Codec
    """RTP and RTCP over a stream"""
    rtsp: Codec
    """interleaved binary data: channel, data; requests and responses are text"""
    bgp: Codec
    """type, body"""
    bmp: Codec
    """BGP monitoring: type, data"""
    rpki_rtr: Codec
    """RPKI to router: version, type, session id (2), data"""
    ipfix: Codec
    """over TCP: export time, sequence number, domain id (4 each), sets"""
    openflow: Codec
    """version, type, transaction id (4), body"""
    ssh: Codec
    """after the version lines, before NEWKEYS: padding length, payload, padding"""
    ssh_agent: Codec
    """type, contents"""
    tpkt: Codec
    """ISO transport on TCP (RDP, S7, H.323): reserved byte (0), TPDU"""
    smb: Codec
    """direct TCP: a 0 (NetBIOS: the packet type), SMB message"""
    pkt_line: Codec
    """git; 0000, 0001, 0002 are members of formats.PktLine"""
    tfrecord: Codec
    """files of TensorFlow: masked CRC of the length (4), data, masked CRC of the data (4)"""
    docker: Codec
    """attach and logs: stream (0, 1, 2), three zeros, output"""
    modbus: Codec
    """Modbus/TCP: transaction id (2), protocol id (2), unit id, PDU"""
    iec104: Codec
    """telecontrol: control field (4), ASDU"""
    dnp3: Codec
    """control, destination (2), source (2), user data; the CRCs are verified and left out"""
    enip: Codec
    """EtherNet/IP: command (2), session, status, context (8), options, data"""
    opcua: Codec
    """OPC UA: message type (3), chunk type, body"""
    dicom: Codec
    """medical images: PDU type, reserved byte, data"""
    esphome: Codec
    """the native API in plain text: type (a varint), protobuf message"""
    esphome_noise: Codec
    """the native API, encrypted: handshake and data frames"""
    x11: Codec
    """requests of little-endian clients, BIG-REQUESTS too: opcode, data byte, rest"""
    i3_ipc: Codec
    """i3 and sway: type (4), JSON"""
    bitcoin: Codec
    """main network: command (12), checksum (4), payload"""
    bittorrent: Codec
    """after the handshake: id, payload; an empty message keeps the connection alive"""
    minecraft: Codec
    """Java Edition without compression: packet id, data"""
    rcon: Codec
    """Source servers: id (4), type (4), text and two zeros"""
    cql: Codec
    """another name of cassandra"""
    ethernet_ip: Codec
    """another name of enip"""
    git: Codec
    """another name of pkt-line"""
    h2: Codec
    """another name of http2"""
    ice_tcp: Codec
    """another name of rtp"""
    iso_tsap: Codec
    """another name of tpkt"""
    jsonrpc: Codec
    """another name of lsp"""
    mariadb: Codec
    """another name of mysql"""
    mongo: Codec
    """another name of mongodb"""
    mssql: Codec
    """another name of tds"""
    nfs: Codec
    """another name of oncrpc"""
    opc_ua: Codec
    """another name of opcua"""
    postgresql: Codec
    """another name of postgres"""
    rabbitmq: Codec
    """another name of amqp"""
    redis: Codec
    """another name of resp"""
    zeromq: Codec
    """another name of zmtp"""
    zmq: Codec
    """another name of zmtp"""

formats: Catalogue
