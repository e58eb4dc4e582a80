#!/usr/bin/env escript
%% An Erlang port: it starts a program and speaks to it over the program's standard streams, with
%% {packet, Size}. Arguments: Size, then the program and its arguments. It sends messages of several
%% sizes and expects each one back; then it closes the port. Prints "ok", or what was wrong.

main([SizeText, Program | Arguments]) ->
    Size = list_to_integer(SizeText),
    Options = [{args, Arguments}, {packet, Size}, binary, exit_status, use_stdio],
    Port = open_port({spawn_executable, Program}, Options),
    Largest = min(300000, (1 bsl (8 * Size)) - 1),
    Messages = [<<>>, <<"hello">>, <<0, 255, 10, 13>>, binary:copy(<<"x">>, Largest)],
    [port_command(Port, Message) || Message <- Messages],
    [expect(Port, Message) || Message <- Messages],
    port_close(Port),
    io:format("ok~n").

expect(Port, Message) ->
    receive
        {Port, {data, Message}} -> ok;
        Other -> io:format("instead of ~p bytes: ~P~n", [byte_size(Message), Other, 20]), halt(1)
    after 30000 -> io:format("no answer~n"), halt(1)
    end.
